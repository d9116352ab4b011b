"""What the corpus stage read, kept and dropped."""

from __future__ import annotations

import collections
from typing import Any

from seallm_jax.core.languages import language_name
from seallm_jax.corpus.document import Rejected
from seallm_jax.corpus.language_counts import LanguageCounts

UNKNOWN = "?"
LANGUAGES_NAMED = 6  # in one cell of a table
EXCERPT_CHARACTERS = 40


class CorpusReport:
    """Counts by language code. Records whose language never became known are under "?"."""

    def __init__(self, counts: dict[str, LanguageCounts] | None = None):
        self.counts: dict[str, LanguageCounts] = dict(counts or {})

    def of(self, language: str) -> LanguageCounts:
        """The counts of a language, to add to."""
        code = language or UNKNOWN
        if code not in self.counts:
            self.counts[code] = LanguageCounts()
        return self.counts[code]

    def drop(self, record: Rejected) -> None:
        """Counts a record that is not used."""
        self.of(record.language).drop(record)

    def add(self, other: CorpusReport) -> None:
        """Adds what another task counted."""
        for language, counts in other.counts.items():
            self.of(language).add(counts)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that have training documents, sorted."""
        return tuple(sorted(code for code, counts in self.counts.items() if counts.train_documents))

    @property
    def dropped(self) -> collections.Counter:
        """Dropped documents of all languages by reason."""
        return sum((counts.dropped for counts in self.counts.values()), collections.Counter())

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest and the report."""
        counts = {code: counts.to_json() for code, counts in sorted(self.counts.items())}
        return {"languages": list(self.languages), "counts": counts}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CorpusReport:
        """The inverse of `to_json`."""
        return cls({code: LanguageCounts.from_json(counts) for code, counts in value["counts"].items()})

    def table(self) -> list[dict[str, Any]]:
        """One row a language, largest first. What the run did not ask for has no column."""
        rows = []
        for code, counts in sorted(self.counts.items(), key=lambda item: (-item[1].bytes_read, item[0])):
            agree = counts.identified.get(code, 0) / max(1, counts.identified.total())
            rows.append(
                {
                    "language": code,
                    "name": language_name(code) if code != UNKNOWN else "unknown",
                    "documents read": counts.documents_read,
                    "kept": counts.train_documents,
                    "held out": counts.heldout_documents,
                    "parallel": counts.parallel_documents,
                    "code-switched": counts.code_switched_documents,
                    "dropped": counts.dropped.total(),
                    "KB read": _kilobytes(counts.bytes_read),
                    "KB kept": _kilobytes(counts.train_bytes),
                    "KB held out": _kilobytes(counts.heldout_bytes),
                    "masked": ", ".join(f"{n} {kind}" for kind, n in counts.masked.most_common()),
                    # the identifier does not know every language; then it confirms none of its labels
                    "label confirmed": f"{agree:.0%}" if agree else "n/a",
                }
            )
        unused = {key for key in ("parallel", "code-switched", "masked") if not any(row[key] for row in rows)}
        return [{key: value for key, value in row.items() if key not in unused} for row in rows]

    def dropped_table(self) -> list[dict[str, Any]]:
        """One row a reason, most frequent first: how much, in which languages, and an example."""
        rows = []
        for reason, documents in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            languages = [(c.dropped[reason], code) for code, c in self.counts.items() if c.dropped[reason]]
            largest = max(languages, key=lambda item: (item[0], item[1]))[1]
            source, excerpt = next(iter(self.counts[largest].samples.get(reason, [])), ("", ""))
            rows.append(
                {
                    "reason": reason,
                    "documents": documents,
                    "KB": _kilobytes(sum(counts.dropped_bytes[reason] for counts in self.counts.values())),
                    "languages": _named(dict((code, n) for n, code in languages)),
                    "for example": source,
                    "which begins": " ".join(excerpt.split())[:EXCERPT_CHARACTERS],
                }
            )
        return rows

    def confusion_table(self) -> list[dict[str, Any]]:
        """One row a label with which identification does not always agree: what it takes the documents for."""
        rows = []
        for code, counts in sorted(self.counts.items()):
            others = {found: n for found, n in counts.identified.items() if found != code}
            if others:
                total = counts.identified.total()
                rows.append(
                    {
                        "label": code,
                        "documents": total,
                        "agree": f"{counts.identified[code] / total:.1%}",
                        "taken for": _named(others),
                    }
                )
        return rows


def _kilobytes(num_bytes: int) -> int:
    return -(-num_bytes // 1000)


def _named(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{code} {n}" for code, n in ordered[:LANGUAGES_NAMED])
    return text + (f" and {len(ordered) - LANGUAGES_NAMED} more" if len(ordered) > LANGUAGES_NAMED else "")
