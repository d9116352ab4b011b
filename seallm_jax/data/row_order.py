"""The order in which a source's rows are served: a new permutation each epoch, computed for each place on its own."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

ROUNDS = 4
FEWEST_BITS = 6  # with fewer the rounds do not reach all permutations alike


def rows_served(
    names: Sequence[str], rows_K: np.ndarray, sources: np.ndarray, services: np.ndarray, seed: int
) -> np.ndarray:
    """The row of its source that each service takes.

    Services e * rows .. (e + 1) * rows - 1 of a source take every row once (epoch e), in the order of `permuted` under
    a key from (seed, name, e).

    Args:
      names: of the sources; the order depends on them, not on their places in the list.
      rows_K: int64 [K], number of rows of each source.
      sources: int [n], index of the source of each service.
      services: int64 [n], how often that source was served before.
      seed: the run's seed.

    Returns:
      int64 [n].
    """
    sizes = rows_K[sources]
    epochs, places = np.divmod(services, sizes)
    pairs, pair_of = np.unique(np.stack([sources, epochs]), axis=1, return_inverse=True)
    keys = [_key(seed, names[source], epoch) for source, epoch in pairs.T.tolist()]
    return permuted(places, sizes, np.array(keys, np.uint64)[pair_of])


def permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """What stands at a place of a random permutation of 0 .. size - 1, without the permutation.

    A bijection of the next power of two (add, multiply by an odd number, shift and xor: each can be undone) is applied
    until the result is below the size, as in cycle walking (Black and Rogaway, CT-RSA 2002) and in the index
    permutation of Kensler (Pixar technical memo 13-01). Two walks at most on average (more below 32 rows); Grain's
    `index_shuffle` walks 65,536 places for a size that is small, and takes one place a call.

    Args:
      places: int64 [n], below the sizes.
      sizes: int64 [n].
      keys: uint64 [n]; equal keys and sizes are one permutation.

    Returns:
      int64 [n].
    """
    bits = np.maximum(np.frexp(sizes - 1.0)[1], FEWEST_BITS).astype(np.uint64)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    shift = (bits + np.uint64(1)) // np.uint64(2)
    size = sizes.astype(np.uint64)
    values = places.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        values[outside] = _mixed(values[outside], keys[outside], mask[outside], shift[outside])
        outside = outside[values[outside] >= size[outside]]
    return values.astype(np.int64)


def _mixed(values: np.ndarray, keys: np.ndarray, mask: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A bijection of 0 .. mask for each key."""
    for number in range(ROUNDS):
        constant = _splitmix(keys + np.uint64(2 * number + 1))
        factor = _splitmix(keys + np.uint64(2 * number + 2)) | np.uint64(1)
        values = ((values + constant) * factor) & mask
        values ^= values >> shift
    return values


def _splitmix(state: np.ndarray) -> np.ndarray:
    """uint64, the outputs of SplitMix64 (Steele et al., OOPSLA 2014) at places `state` of its sequence."""
    state = state * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@functools.lru_cache(maxsize=1 << 14)
def _key(seed: int, name: str, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{epoch}".encode()).digest()[:8], "little")
