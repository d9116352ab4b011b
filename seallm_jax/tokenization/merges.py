"""Continued byte-pair encoding: new merges on top of the base tokenizer's.

The words are sequences of base symbols, as the base writes them. The most frequent neighbours become a piece, again
and again, as in Sennrich et al. (arXiv 1508.07909) and, from an existing vocabulary on, arXiv 2512.03989. Everything is
held to what SentencePiece does when it encodes: a piece is its text, so all pairs that spell it are merged, leftmost
first, and a pair that spells a piece which exists already is merged at once, since that piece's score is higher.

Counts are exact but lazy. A pair's occurrences all arise when its newer symbol does, so each merge stores one sorted
block of (pair, position). The heap holds upper bounds, which are made exact when they come to the top. A merge is a few
vectorised numpy operations on its positions, however long the words are.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from seallm_jax.core.progress import Advance
from seallm_jax.tokenization.assemble import ambiguous
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.segments import SymbolTable, Words

_DEAD, _END = -2, -1
_WEIGHT_UNIT = 1024  # weights are integers, so that sums do not depend on their order


@dataclasses.dataclass(frozen=True)
class _Block:
    """Occurrences of pairs: `keys` int64 sorted, one per pair; its positions are positions[starts[i]:starts[i + 1]]."""

    keys: np.ndarray
    starts: np.ndarray
    positions: np.ndarray

    def find(self, key: int) -> np.ndarray:
        index = int(np.searchsorted(self.keys, key))
        if index == len(self.keys) or self.keys[index] != key:
            return self.positions[:0]
        return self.positions[self.starts[index] : self.starts[index + 1]]


@dataclasses.dataclass(frozen=True)
class LearnedPiece:
    """A new piece in the order of learning.

    Attributes:
      text: the piece.
      parts: the texts of the two pieces it was mostly made of; empty for a single character.
      frequency: how often it is left in the training text after all merges.
      language: index of the language that has most of it, by weight.
    """

    text: str
    parts: tuple[str, ...]
    frequency: int
    language: int = 0


class MergeLearner:
    """Learns pieces on the words of several languages.

    Args:
      table: the symbols, and the base's pieces.
      mergeable: the base's pieces that take part in merges, with their ids.
      words: words per language.
      factors: weight per language of one occurrence; None protects the text: nothing is learned from it, and pieces
        that would change it too often are refused.
      protected_ratio: a piece is refused when protected text has it more than this many times as often, per byte, as
        the other text.
      size: pieces to learn at most.
      minimum_frequency: occurrences that a new piece must have when it is made.
      maximum_length: characters per new piece.
      budgets: pieces per language at most, None for no bound of its own; a piece is on the account of the language that
        has most of it. A language whose budget is spent teaches nothing any more.
      admits: pieces for which it is false are never made.
    """

    def __init__(
        self,
        table: SymbolTable,
        mergeable: Mapping[str, int],
        words: Sequence[Words],
        factors: Sequence[float | None],
        *,
        protected_ratio: float,
        size: int,
        minimum_frequency: int,
        maximum_length: int,
        budgets: Sequence[int | None] = (),
        admits: Callable[[str], bool] = lambda text: True,
    ):
        self._size, self._minimum, self._maximum = size, minimum_frequency, maximum_length
        self._texts = [table.piece(index) for index in range(table.base_size + len(table.characters))]
        self._lookup = dict(mergeable)
        self._readable = table.readable
        self._admits = admits
        self._budgets = list(budgets) or [None] * len(words)
        self._spent = [0] * len(words)
        self._lay_out(words, factors)
        sizes = [
            sum(block.size for block, factor in zip(words, factors, strict=True) if (factor is None) is protected)
            for protected in (True, False)
        ]
        self._tolerated = protected_ratio * sizes[0] / max(sizes[1], 1)
        # characters that the base lacks: not pieces yet, and part of no pair until they are
        self._active = np.zeros(len(self._texts) + size, bool)
        self._active[list(mergeable.values())] = True
        self._lengths = np.zeros(len(self._texts) + size, np.int64)
        self._lengths[: len(self._texts)] = [len(text) for text in self._texts]
        self._longest = max(maximum_length, *map(len, mergeable))
        self._blocks: dict[int, list[_Block]] = {}  # by the symbol whose coming made the pairs
        self._bounds: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._parts: dict[str, tuple[str, ...]] = {}
        self._order: list[int] = []
        self._language: dict[str, int] = {}
        self._first_block = self._store(np.arange(len(self._symbols), dtype=np.int32))
        self._offer_characters(table.base_size)

    def learn(self, advance: Advance) -> list[LearnedPiece]:
        """Learns up to `size` pieces, fewer when nothing occurs `minimum_frequency` times any more."""
        while len(self._order) < self._size and self._heap:
            negative_bound, text = heapq.heappop(self._heap)
            if self._bounds.get(text) != -negative_bound:
                continue  # an older entry of a piece whose bound has changed
            positions = self._occurrences(text)
            weight = self._worth(text, positions)
            if self._heap and weight < -self._heap[0][0]:
                self._bounds[text] = weight
                if weight > 0:
                    heapq.heappush(self._heap, (-weight, text))
                continue
            del self._bounds[text]
            if weight <= 0 or self._refused(text, positions):
                continue
            self._charge(text, positions)
            self._add(text, positions)
            advance(1, note=self._readable(text).strip())
        return self._result()

    def _lay_out(self, words: Sequence[Words], factors: Sequence[float | None]) -> None:
        """All words in one array of symbols, with links to the neighbours and a count and a weight per position."""
        self._symbols = np.concatenate([block.symbols for block in words] + [np.full(1, _END, np.int32)])
        lengths = np.concatenate([block.lengths for block in words])
        counts, weights, protected = [], [], []
        for block, factor in zip(words, factors, strict=True):
            nothing = np.zeros_like(block.counts)
            weight = nothing if factor is None else np.maximum(1, np.round(block.counts * (factor * _WEIGHT_UNIT)))
            weights.append(weight.astype(np.int64))
            counts.append(nothing if factor is None else block.counts)
            protected.append(block.counts if factor is None else nothing)
        total = len(self._symbols) - 1
        ends = np.cumsum(lengths)
        self._right = np.arange(1, total + 2, dtype=np.int32)
        self._right[ends - 1] = total  # the end mark stands for every word's end
        self._left = np.arange(-1, total, dtype=np.int32)
        self._left[(ends - lengths)[lengths > 0]] = total
        self._left = np.append(self._left, np.int32(total))
        self._right[total] = total
        # the word at each position, and what one occurrence counts there; the end mark is a word of its own
        self._word = np.append(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), np.int32(len(lengths)))
        self._counts, self._weights, self._protected = (
            np.append(np.concatenate(values), 0) for values in (counts, weights, protected)
        )
        sizes = [len(block.lengths) for block in words]
        self._language_of_word = np.append(np.repeat(np.arange(len(words), dtype=np.int16), sizes), np.int16(0))

        for language, budget in enumerate(self._budgets):
            if budget == 0:
                self._weights[self._language_of_word == language] = 0

    def _sum(self, of_words: np.ndarray, positions: np.ndarray) -> int:
        return int(of_words[self._word[positions]].sum())

    def _charge(self, text: str, positions: np.ndarray) -> None:
        """Puts the piece on the account of the language that has most of it."""
        word = self._word[positions]
        main = int(np.bincount(self._language_of_word[word], weights=self._weights[word]).argmax())
        self._language[text] = main
        self._spent[main] += 1
        if self._spent[main] == self._budgets[main]:
            self._weights[self._language_of_word == main] = 0

    def _offer_characters(self, base_size: int) -> None:
        """A new character saves all its bytes but one, everywhere; it competes with the merges for a place."""
        symbols = self._symbols[:-1]
        unknown = np.flatnonzero(symbols >= base_size)
        kinds = symbols[unknown]
        order = np.argsort(kinds, kind="stable")
        distinct, starts = np.unique(kinds[order], return_index=True)
        groups = np.split(unknown[order], starts)[1:]
        self._characters: dict[str, tuple[int, np.ndarray]] = {}
        for symbol, positions in zip(distinct.tolist(), groups, strict=True):
            text = self._texts[symbol]
            if text == SPACE:
                continue  # the character itself, which has to stay apart from the sign for a space
            if not self._admits(text):
                continue
            self._characters[text] = (symbol, positions)
            self._offer(text, self._worth(text, positions))

    def _worth(self, text: str, positions: np.ndarray) -> int:
        saved = len(text.encode()) - 1 if text in self._characters else 1
        return saved * self._sum(self._weights, positions)

    def _offer(self, text: str, weight: int) -> None:
        bound = self._bounds.get(text, 0) + weight
        self._bounds[text] = bound
        heapq.heappush(self._heap, (-bound, text))

    def _store(self, positions: np.ndarray) -> _Block:
        """Files the pairs that begin at `positions` and offers those frequent enough. Returns their block.

        Positions where a pair cannot become a new piece are left out, save those that spell a piece which exists.
        """
        a, b = self._symbols[positions], self._symbols[self._right[positions]]
        fits = (a >= 0) & (b >= 0)
        fits[fits] &= self._active[a[fits]] & self._active[b[fits]]
        fits[fits] &= (self._lengths[a[fits]] + self._lengths[b[fits]]) <= self._longest
        positions, a, b = positions[fits], a[fits].astype(np.int64), b[fits].astype(np.int64)
        pairs = (a << 32) | b
        order = np.argsort(pairs, kind="stable")
        pairs, positions = pairs[order], positions[order]
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        keys = pairs[starts]
        block = _Block(keys, np.append(starts, len(pairs)), positions)
        if len(keys) == 0:
            return block
        word = self._word[positions]
        counts = np.add.reduceat(self._counts[word], starts)
        weights = np.add.reduceat(self._weights[word], starts)
        frequent = np.flatnonzero(counts >= self._minimum)
        for index in frequent.tolist():
            key = int(keys[index])
            text = self._texts[key >> 32] + self._texts[key & 0xFFFFFFFF]
            if len(text) <= self._maximum and text not in self._lookup and self._admits(text):
                self._offer(text, int(weights[index]))
        return block

    def _occurrences(self, text: str) -> np.ndarray:
        """Positions at which `text` would be made now, in order, none overlapping another."""
        if text in self._characters:
            return self._characters[text][1]
        found, keys = [], []
        for cut in range(1, len(text)):
            a, b = self._lookup.get(text[:cut]), self._lookup.get(text[cut:])
            if a is None or b is None:
                continue
            key = (a << 32) | b
            keys.append(key)
            found.append(self._first_block.find(key))
            found += [block.find(key) for symbol in {a, b} for block in self._blocks.get(symbol, ())]
        if not found:
            return np.zeros(0, np.int32)
        positions = np.unique(np.concatenate(found))
        a = self._symbols[positions].astype(np.int64)
        b = self._symbols[self._right[positions]].astype(np.int64)
        return self._apart(positions[np.isin((a << 32) | b, keys) & (a >= 0)])

    def _apart(self, positions: np.ndarray) -> np.ndarray:
        """Every second one of positions that overlap (as in aaa), from the left."""
        overlaps = self._right[positions[:-1]] == positions[1:]
        if not overlaps.any():
            return positions
        keep = np.ones(len(positions), bool)
        for index in np.flatnonzero(overlaps).tolist():
            keep[index + 1] = not keep[index]
        return positions[keep]

    def _refused(self, text: str, positions: np.ndarray) -> bool:
        """Whether `text` must not become a piece: too rare, too frequent in protected text, or ambiguous."""
        count = self._sum(self._counts, positions)
        protected = self._sum(self._protected, positions)
        return count < self._minimum or protected > self._tolerated * count or ambiguous(text, self._lookup)

    def _add(self, text: str, positions: np.ndarray) -> None:
        """Makes `text` a piece and merges its occurrences."""
        if text in self._characters:
            symbol = self._characters[text][0]
            self._active[symbol] = True
            self._parts[text] = ()
            self._lookup[text] = symbol
            self._order.append(symbol)
            around = np.unique(np.concatenate([self._left[positions], positions]))
            self._settle(symbol, around)
            return
        symbol = len(self._texts)
        pairs, counts = np.unique(
            (self._symbols[positions].astype(np.int64) << 32) | self._symbols[self._right[positions]],
            return_counts=True,
        )
        main = int(pairs[counts.argmax()])
        self._parts[text] = (self._texts[main >> 32], self._texts[main & 0xFFFFFFFF])
        self._texts.append(text)
        self._lookup[text] = symbol
        self._order.append(symbol)
        self._active[symbol] = True
        self._lengths[symbol] = len(text)
        self._settle(symbol, self._merge(positions, symbol))

    def _merge(self, positions: np.ndarray, symbol: int) -> np.ndarray:
        """Joins the pairs at `positions`. Returns the positions where pairs have changed."""
        second = self._right[positions]
        after = self._right[second]
        self._symbols[positions] = symbol
        self._symbols[second] = _DEAD
        self._right[positions] = after
        end = len(self._symbols) - 1
        self._left[after] = positions
        self._left[end] = end
        return np.unique(np.concatenate([self._left[positions], positions]))

    def _settle(self, symbol: int, changed: np.ndarray) -> None:
        """Files the new pairs; those that spell an existing piece are merged at once, earlier pieces first."""
        changed = changed[changed < len(self._symbols) - 1]
        block = self._store(changed)
        self._blocks.setdefault(symbol, []).append(block)
        existing = set()
        for key in block.keys.tolist():
            text = self._texts[key >> 32] + self._texts[key & 0xFFFFFFFF]
            if text in self._lookup:
                existing.add(self._lookup[text])
        for old in sorted(existing):
            positions = self._occurrences(self._texts[old])
            if len(positions):
                self._settle(old, self._merge(positions, old))

    def _result(self) -> list[LearnedPiece]:
        alive = np.flatnonzero(self._symbols >= 0)
        counts = self._counts[self._word[alive]]
        left = np.bincount(self._symbols[alive], weights=counts, minlength=len(self._texts))
        texts = [(self._texts[symbol], int(left[symbol])) for symbol in self._order]
        return [LearnedPiece(text, self._parts[text], count, self._language[text]) for text, count in texts]
