"""BPE-dropout (Provilkov et al., arXiv 1910.13267): random segmentations that decode to the same text.

As in the paper's algorithm, each merge that could be made now is skipped with the given probability, the first of those
left is made, and so on until all are skipped. Words are independent, so thousands go at once, a merge a round.
The random bits are a hash of seed, text, word, round and place: a text's segmentation depends on nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError

_NEVER = np.iinfo(np.int32).max
_BLOCK = 1 << 18  # symbols of a matrix of words
_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclasses.dataclass(frozen=True)
class MergeTable:
    """The merges of a tokenizer.

    Attributes:
      pairs: int64 [N] sorted, left id << 32 | right id.
      ranks: int32 [N], the lowest is made first; equal ones from the left.
      results: int32 [N], id of the union.
      neighbours: int64 sorted, the pairs of single symbols that some piece has side by side; words end elsewhere.
    """

    pairs: np.ndarray
    ranks: np.ndarray
    results: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def build(cls, merges: Iterable[tuple[int, int, int, int]], spellings: Iterable[Sequence[int]]) -> MergeTable:
        """From (left, right, rank, result), of which the first for a pair counts, and pieces as single symbols."""
        columns = np.asarray(list(merges), np.int64).reshape(-1, 4)
        pairs, first = np.unique((columns[:, 0] << 32) | columns[:, 1], return_index=True)
        listed = list(spellings)
        symbols = np.fromiter(itertools.chain.from_iterable(listed), np.int64)
        inside = np.ones(len(symbols), bool)
        inside[np.cumsum([len(spelling) for spelling in listed], dtype=np.int64) - 1] = False
        neighbours = np.unique(((symbols << 32) | np.roll(symbols, -1))[inside])
        ranks, results = columns[first, 2].astype(np.int32), columns[first, 3].astype(np.int32)
        return cls(pairs, ranks, results, neighbours)

    def look_up(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Index of each pair's merge; -1 where there is none."""
        return _find(self.pairs, (left.astype(np.int64) << 32) | right)


def encode_with_dropout(
    table: MergeTable,
    symbols: Sequence[np.ndarray],
    begins: Sequence[np.ndarray],
    keys: Sequence[int],
    dropout: float,
) -> list[np.ndarray]:
    """Random ids of texts.

    Args:
      table: the merges.
      symbols: per text, int32 [S], the ids that merging starts from.
      begins: per text, bool [S], where a word begins.
      keys: per text, what its randomness comes from; see `text_key`.
      dropout: probability of skipping a merge.

    Returns:
      Per text, int32 ids.
    """
    lengths = np.asarray([len(text) for text in symbols], np.int64)
    flat = np.concatenate([*symbols, np.zeros(0, np.int32)]).astype(np.int32)
    if not flat.size:
        return [np.zeros(0, np.int32) for _ in symbols]
    cut = np.concatenate(begins).astype(bool)
    cut[1:] |= _find(table.neighbours, (flat[:-1].astype(np.int64) << 32) | flat[1:]) < 0
    cut[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    starts = np.flatnonzero(cut)
    text_of_word = np.repeat(np.arange(len(lengths)), lengths)[starts]
    number = np.arange(len(starts)) - np.searchsorted(text_of_word, text_of_word)  # of the word in its text
    word_keys = _mix(np.asarray(keys, np.uint64)[text_of_word] + number.astype(np.uint64) * _ODD[1])
    ids, sizes = _segment_words(table, flat, starts, word_keys, dropout)
    return np.split(ids, np.cumsum(np.bincount(text_of_word, weights=sizes, minlength=len(lengths)).astype(int))[:-1])


def text_key(text: str, seed: int) -> int:
    """64 bits that a text's segmentation is drawn from."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest(), "little")


def check_dropout(dropout: float) -> None:
    """Raises SeallmError unless `dropout` is a probability below 1."""
    if not 0 <= dropout < 1:
        raise SeallmError(f"dropout {dropout} must be at least 0 and below 1; 0.1 is usual")


def _segment_words(
    table: MergeTable, symbols: np.ndarray, starts: np.ndarray, keys: np.ndarray, dropout: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all words, one after another, and their number per word."""
    lengths = np.diff(np.append(starts, len(symbols)))
    kept = symbols.copy()  # each word's ids, from its old place on
    sizes = lengths.copy()
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 1]
    while len(order):
        rows = order[: max(1, np.searchsorted(lengths[order] * np.arange(1, len(order) + 1), _BLOCK))]
        order = order[len(rows) :]
        longest = int(lengths[rows[-1]])
        columns = np.arange(longest)
        inside = columns < lengths[rows][:, None]
        matrix = np.where(inside, symbols[np.where(inside, starts[rows][:, None] + columns, 0)], -1)
        merged, sizes[rows] = _merge(table, matrix, lengths[rows], keys[rows], dropout)
        left = columns < sizes[rows][:, None]
        kept[(starts[rows][:, None] + columns)[left]] = merged[left]
    place = np.arange(len(symbols)) - np.repeat(starts, lengths)
    return kept[place < np.repeat(sizes, lengths)], sizes


def _merge(
    table: MergeTable, matrix: np.ndarray, sizes: np.ndarray, keys: np.ndarray, dropout: float
) -> tuple[np.ndarray, np.ndarray]:
    """Runs the algorithm on the rows of `matrix` [W, L], of which `sizes` symbols count; returns both afterwards."""
    matrix, sizes = matrix.copy(), sizes.copy()
    bound = np.uint64(min(int(dropout * 2.0**64), 2**64 - 1))
    rows = np.arange(len(matrix))
    current = matrix
    merges = table.look_up(current[:, :-1], current[:, 1:])
    ranks = np.where(merges >= 0, table.ranks[merges], _NEVER)
    step = 0
    while len(rows):
        columns = np.arange(ranks.shape[1])
        place = np.asarray([step], np.uint64) * _ODD[0] + columns.astype(np.uint64) * _ODD[2]
        skipped = _mix(keys[rows][:, None] + place) < bound
        left = np.where(skipped, _NEVER, ranks)
        best = left.argmin(axis=1)
        goes_on = left[np.arange(len(rows)), best] < _NEVER
        done = rows[~goes_on]
        matrix[done, : current.shape[1]] = current[~goes_on]
        rows, best = rows[goes_on], best[goes_on]
        if not len(rows):
            break
        current, ranks, merges = current[goes_on], ranks[goes_on], merges[goes_on]
        each = np.arange(len(rows))
        result = table.results[merges[each, best]]
        # the symbols and pairs behind the merge move one place to the left
        shifted = np.where(columns > best[:, None], current[:, 1:], current[:, :-1])
        shifted[each, best] = result
        behind = columns[:-1] >= best[:, None]
        ranks = np.where(behind, ranks[:, 1:], ranks[:, :-1])
        merges = np.where(behind, merges[:, 1:], merges[:, :-1])
        sizes[rows] -= 1
        width = int(sizes[rows].max())
        current, ranks, merges = shifted[:, :width], ranks[:, : width - 1], merges[:, : width - 1]
        for first in (best - 1, best):
            there = (first >= 0) & (first + 1 < sizes[rows])
            row, at = each[there], first[there]
            merges[row, at] = found = table.look_up(current[row, at], current[row, at + 1])
            ranks[row, at] = np.where(found >= 0, table.ranks[found], _NEVER)
        if width < 2:
            matrix[rows, :1] = current
            break
        step += 1
    return matrix, sizes


def _find(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each value in a sorted array; -1 where it is not there."""
    if not len(ordered):
        return np.full(values.shape, -1)
    index = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[index] == values, index, -1)


def _mix(values: np.ndarray) -> np.ndarray:
    """Random bits from numbers that are not random (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _ODD[1]
    values = (values ^ (values >> np.uint64(27))) * _ODD[2]
    return values ^ (values >> np.uint64(31))
