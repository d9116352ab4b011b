"""Piecewise-constant integer weights of all sources over the rows of a run, and their exact cumulative quotas."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

MAXIMUM_SCALE_BITS = 40


def scale_bits(rows: int) -> int:
    """Bits of the fixed point for a schedule of `rows` rows: the most that keep every quota below 2**62, at most 40."""
    return min(MAXIMUM_SCALE_BITS, 62 - max(int(rows), 1).bit_length())


def quantize(shares: list[float], scale: int, *, capped: frozenset[int] = frozenset()) -> list[int]:
    """Shares that sum to 1 as integers that sum to `scale` exactly.

    Every share is rounded down; what is left over, less than one unit a source, goes to the largest source that is not
    in `capped` (a capped source must never be served above its cap). A positive uncapped share keeps at least one unit.
    """
    weights = [int(share * scale) for share in shares]
    weights = [
        max(weight, 1) if share > 0 and i not in capped else weight
        for i, (weight, share) in enumerate(zip(weights, shares, strict=True))
    ]
    free = [i for i, share in enumerate(shares) if share > 0 and i not in capped]
    largest = max(free or range(len(shares)), key=lambda i: weights[i])
    weights[largest] += scale - sum(weights)
    return weights


def spread(totals: list[int], rows: int) -> list[tuple[int, list[int]]]:
    """Segments (rows, weights) over `rows` rows whose weights add up to `totals` exactly.

    The totals must be a multiple of `rows` together. Each source gets floor(total / rows) at every row, and the rest
    one unit at a time, wrapped around the rows (McNaughton's rule), so that every row hands out the same.
    """
    weights = [total // rows for total in totals]
    spans, cuts, position = [], {0, rows}, 0
    for source, total in enumerate(totals):
        first, last = position, position + total % rows
        spans += [(source, first, min(last, rows)), (source, 0, max(last - rows, 0))]
        position = last % rows
        cuts |= {first, min(last, rows), max(last - rows, 0)}
    bounds = sorted(cuts)
    segments = []
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        extra = list(weights)
        for source, first, last in spans:
            extra[source] += first <= start < last
        segments.append((stop - start, extra))
    return segments


@dataclasses.dataclass(frozen=True)
class WeightSchedule:
    """Weights of K sources: constant within each of S segments of rows.

    The quota of source i at prefix n is the sum of its weights over the rows 0 .. n - 1, in units of 1 / scale rows.
    All arithmetic is exact in int64, because no quota reaches 2**62.

    Attributes:
      starts: int64 [S + 1], first row of each segment, and the total number of rows.
      weights: int64 [S, K]; each row sums to `scale`.
      scale: units of one row, a power of two.
    """

    starts: np.ndarray
    weights: np.ndarray
    scale: int

    def __post_init__(self):
        if (np.diff(self.starts) <= 0).any() or self.starts[0] != 0 or len(self.starts) != len(self.weights) + 1:
            raise ValueError("segments must begin at row 0 and be ordered and not empty")
        if (self.weights < 0).any() or (self.weights.sum(axis=1) != self.scale).any():
            raise ValueError(f"the weights of each segment must sum to {self.scale}")
        if self.rows * self.scale >= 1 << 62:
            raise ValueError(f"{self.rows} rows at scale {self.scale} overflow int64")

    @property
    def rows(self) -> int:
        """Total number of rows N."""
        return int(self.starts[-1])

    @property
    def sources(self) -> int:
        """Number of sources K."""
        return self.weights.shape[1]

    @functools.cached_property
    def cumulative(self) -> np.ndarray:
        """int64 [K, S + 1]: quota of each source at the beginning of each segment and at the end."""
        served = self.weights * np.diff(self.starts)[:, None]
        return np.concatenate([np.zeros((1, self.sources), np.int64), np.cumsum(served, axis=0)]).T.copy()

    def segment_of(self, row: int) -> int:
        """Index of the segment that holds `row`."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def weights_at(self, row: int) -> np.ndarray:
        """int64 [K], weights of one row."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside the schedule's {self.rows} rows")
        return self.weights[self.segment_of(row)]

    def quota(self, source: int, prefixes: np.ndarray | int) -> np.ndarray:
        """int64, quota of one source at each prefix (number of rows, 0 .. N)."""
        prefixes = np.asarray(prefixes, np.int64)
        segments = np.clip(np.searchsorted(self.starts, prefixes, side="right") - 1, 0, len(self.weights) - 1)
        into = prefixes - self.starts[segments]
        return self.cumulative[source, segments] + into * self.weights[segments, source]

    def quotas(self, prefix: int) -> np.ndarray:
        """int64 [K], quota of every source at one prefix."""
        return np.array([self.quota(source, prefix) for source in range(self.sources)])

    def row_reaching(self, source: int, quotas: np.ndarray) -> np.ndarray:
        """int64, first row n with quota(n + 1) >= each of `quotas` (all positive); N where that never happens."""
        totals = self.cumulative[source]
        segments = np.searchsorted(totals, quotas, side="left") - 1  # totals[s] < quota <= totals[s + 1]
        never = segments == len(self.weights)
        segments = np.minimum(segments, len(self.weights) - 1)
        weight = np.maximum(self.weights[segments, source], 1)  # 0 only where never
        rows = self.starts[segments] - 1 - (totals[segments] - quotas) // weight
        return np.where(never, self.rows, rows)

    def absences(self) -> list[tuple[int, int, int]]:
        """(source, first row without weight, first row with weight again or N) of each source that leaves the mixture
        while a fraction of a row is owed to it, or was served to it in advance."""
        found = []
        for source in range(self.sources):
            present = self.weights[:, source] > 0
            edges = np.flatnonzero(np.diff(present.astype(np.int8)))
            for edge in edges:
                segment = int(edge) + 1
                if present[segment] or self.cumulative[source, segment] % self.scale == 0:
                    continue
                later = np.flatnonzero(present[segment:])
                back = int(self.starts[segment + later[0]]) if later.size else self.rows
                found.append((source, int(self.starts[segment]), back))
        return found
