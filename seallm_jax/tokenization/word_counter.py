"""Counting words in bounded memory."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np

_SYMBOL_BYTES = 4


class WordCounter:
    """Counts of words, exact while they fit in memory and a sample without bias afterwards.

    A word is the bytes of its int32 symbols. When the different words hold more than `maximum_symbols` symbols, the
    `threshold` doubles: a word counted less often than that stays with probability count / threshold and then counts
    as `threshold`, and a word not yet known enters in the same way. Every count, and so every count of pairs within
    words, keeps its expectation (counting samples, Gibbons and Matias 1998); frequent words stay exact.

    Attributes:
      threshold: 1 while counts are exact; afterwards, what a rare word stands for.
    """

    def __init__(self, maximum_symbols: int):
        self.threshold = 1
        self._maximum = maximum_symbols
        self._symbols = 0
        self._counts: dict[bytes, int] = {}
        self._random = random.Random(0)

    def add(self, words: Iterable[tuple[bytes, int]]) -> None:
        """Adds occurrences: (word, how often)."""
        counts = self._counts
        for word, number in words:
            known = counts.get(word)
            if known is None and self.threshold > 1:
                number = self._rounded(number)
            if known is not None:
                counts[word] = known + number
            elif number:
                counts[word] = number
                self._symbols += len(word) // _SYMBOL_BYTES
                if self._symbols > self._maximum:
                    self._thin()
                    counts = self._counts

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(symbols int32 one word after another, lengths int64, counts int64), in the order of first occurrence."""
        words = list(self._counts)
        lengths = np.fromiter((len(word) // _SYMBOL_BYTES for word in words), np.int64, len(words))
        counts = np.fromiter(self._counts.values(), np.int64, len(words))
        return np.frombuffer(b"".join(words), np.int32), lengths, counts

    def _rounded(self, number: int) -> int:
        """A multiple of the threshold whose expectation is `number`."""
        whole, rest = divmod(number, self.threshold)
        return (whole + (self._random.random() * self.threshold < rest)) * self.threshold

    def _thin(self) -> None:
        while self._symbols > self._maximum and self._counts:
            self.threshold *= 2
            kept = {
                word: count if count >= self.threshold else self.threshold
                for word, count in self._counts.items()
                if count >= self.threshold or self._random.random() * self.threshold < count
            }
            self._counts = kept
            self._symbols = sum(map(len, kept)) // _SYMBOL_BYTES
