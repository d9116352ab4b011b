"""What the corpus stage read, kept and dropped."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from seallm_jax.core.languages import language_name


@dataclasses.dataclass
class LanguageCounts:
    """Documents and UTF-8 bytes of one language; `dropped` counts documents by reason, `identified` by detection."""

    documents_read: int = 0
    bytes_read: int = 0
    train_documents: int = 0
    train_bytes: int = 0
    heldout_documents: int = 0
    heldout_bytes: int = 0
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    identified: collections.Counter = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass
class CorpusReport:
    """Counts by language code. Records whose language never became known are under "?"."""

    counts: dict[str, LanguageCounts]

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that have training documents, sorted."""
        return tuple(sorted(code for code, counts in self.counts.items() if counts.train_documents))

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest and the report."""
        counts = {
            code: counts.__dict__ | {"dropped": dict(counts.dropped), "identified": dict(counts.identified)}
            for code, counts in self.counts.items()
        }
        return {"languages": list(self.languages), "counts": counts}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CorpusReport:
        """The inverse of `to_json`."""
        counters = ("dropped", "identified")
        return cls(
            {
                code: LanguageCounts(**counts | {key: collections.Counter(counts[key]) for key in counters})
                for code, counts in value["counts"].items()
            }
        )

    def table(self) -> list[dict[str, Any]]:
        """One row a language, largest first, and the sum."""
        rows = []
        ordered = sorted(self.counts.items(), key=lambda item: -item[1].bytes_read)
        for code, counts in ordered:
            agree = counts.identified.get(code, 0) / max(1, sum(counts.identified.values()))
            rows.append(
                {
                    "language": code,
                    "name": language_name(code) if code != "?" else "unknown",
                    "documents read": counts.documents_read,
                    "kept": counts.train_documents,
                    "held out": counts.heldout_documents,
                    "dropped": sum(counts.dropped.values()),
                    "why": ", ".join(f"{n} {reason}" for reason, n in counts.dropped.most_common()),
                    "KB kept": round(counts.train_bytes / 1000, 1),
                    "KB held out": round(counts.heldout_bytes / 1000, 1),
                    # the identifier does not know every language; then it confirms none of its labels
                    "label confirmed": f"{agree:.0%}" if agree else "n/a",
                }
            )
        return rows
