"""Which language is taken for which."""

from __future__ import annotations

import collections
from typing import Any

OTHER = "other"


class ConfusionTable:
    """Counts of (true language, predicted language)."""

    def __init__(self) -> None:
        self._counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def add(self, language: str, predicted: str) -> None:
        """Counts one text of `language` that was taken for `predicted`, "" for none."""
        self._counts[language][predicted] += 1

    @property
    def languages(self) -> tuple[str, ...]:
        """The true languages, sorted."""
        return tuple(sorted(self._counts))

    def total(self, language: str) -> int:
        """Number of texts of a language."""
        return self._counts[language].total()

    def recall(self, language: str) -> float:
        """Share of the language's texts that were recognised."""
        return self._counts[language][language] / max(1, self.total(language))

    def precision(self, language: str) -> float | None:
        """Share of what was taken for the language that is it, true languages weighted alike; None if nothing was."""
        shares = {true: counts[language] / counts.total() for true, counts in self._counts.items()}
        return shares.get(language, 0.0) / sum(shares.values()) if sum(shares.values()) else None

    def rows(self) -> list[dict[str, Any]]:
        """A row a true language: how many of its texts were taken for each language, blank for none."""
        rows = []
        for language, counts in sorted(self._counts.items()):
            columns = {code: counts[code] or None for code in self.languages}
            rest = counts.total() - sum(counts[code] for code in self.languages)
            rows.append({"true": language, **columns, OTHER: rest or None})
        return rows
