"""What a run wrote down about the rows that it has trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError


@dataclasses.dataclass(frozen=True)
class ServedRecord:
    """Rows served by each source at the points where a run wrote a line.

    Attributes:
      rows: int64 [P], rows consumed, ascending.
      by_source: name -> int64 [P], how many of them it has served.
      learned: language code -> tokens that were learned from, over the whole run so far.
    """

    rows: np.ndarray
    by_source: Mapping[str, np.ndarray]
    learned: Mapping[str, int]

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]], name: str) -> ServedRecord:
        """From the lines of a metrics.jsonl.

        Args:
          lines: with `rows`, `served` (source -> share of all rows so far) and `counts_by_language`.
          name: of the run, for errors.

        Raises:
          SeallmError: there is no line, or lines do not tell what was served.
        """
        lines = list(lines)
        if not lines or not all(line.get("served") for line in lines):
            raise SeallmError(f"{name} has not recorded what it served; let it train to its next line of metrics")
        rows = np.array([line["rows"] for line in lines], np.int64)
        names = sorted({source for line in lines for source in line["served"]})
        shares = np.array([[line["served"].get(source, 0.0) for source in names] for line in lines])
        counts = np.rint(shares * rows[:, None]).astype(np.int64)
        learned: dict[str, float] = {}
        for line in lines:
            for code, count in line["counts_by_language"].items():
                learned[code] = learned.get(code, 0) + count
        by_source = {source: counts[:, place] for place, source in enumerate(names)}
        return cls(rows, by_source, {code: round(count) for code, count in learned.items()})

    def of_sources(self, names: Iterable[str]) -> np.ndarray:
        """int64 [P], rows that these sources have served together."""
        none = np.zeros_like(self.rows)
        return sum((self.by_source.get(name, none) for name in names), none)
