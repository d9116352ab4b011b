"""The order in which a source's rows are served: a new permutation each epoch."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from grain.experimental import index_shuffle

ROUNDS = 4
SMALL = (
    1 << 16
)  # rows; `index_shuffle` walks through about this many places for one row of a source of any smaller size


def rows_served(name: str, rows: int, services: np.ndarray, seed: int) -> np.ndarray:
    """The row of a source that each of its services takes.

    Services e * rows .. (e + 1) * rows - 1 take every row once (epoch e). The order is Grain's `index_shuffle`,
    computed on the fly; for a source below 65,536 rows, where that takes up to 13 ms a row, it is that of SplitMix64
    hashes of the rows, and the permutations of the latest epochs are kept. Both are seeded by (seed, name, e).

    Args:
      name: name of the source; the order depends on it, not on its index among the sources.
      rows: number of rows of the source.
      services: int64 [n], how often the source was served before; ascending.
      seed: the run's seed.

    Returns:
      int64 [n].
    """
    epochs, positions = np.divmod(services, rows)
    result = np.empty(len(services), np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        epoch_seed = _epoch_seed(seed, name, epoch)
        if rows < SMALL:
            result[here] = _permutation(rows, epoch_seed)[positions[here]]
        else:
            short = epoch_seed & 0xFFFFFFFF
            result[here] = [index_shuffle(position, rows - 1, short, ROUNDS) for position in positions[here].tolist()]
    return result


def _epoch_seed(seed: int, name: str, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{epoch}".encode()).digest()[:8], "little")


@functools.lru_cache(maxsize=128)
def _permutation(rows: int, seed: int) -> np.ndarray:
    """int32 [rows]: the numbers below `rows` in the order of their SplitMix64 hashes (Steele et al., OOPSLA 2014)."""
    state = np.uint64(seed) + np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(state ^ (state >> np.uint64(31)), kind="stable").astype(np.int32)
