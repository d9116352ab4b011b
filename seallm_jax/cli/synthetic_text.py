"""Documents for benchmarks: random words in the frequencies of real ones, and changed copies of known similarity."""

from __future__ import annotations

import numpy as np

_LETTERS = "abcdefghijklmnoprstuwy"
_VOCABULARY = 20_000


class SyntheticText:
    """Texts that follow from a seed."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        lengths = self._random.integers(2, 11, _VOCABULARY)
        letters = self._random.choice(list(_LETTERS), (_VOCABULARY, 10))
        self._words = np.array(["".join(row[:length]) for row, length in zip(letters, lengths, strict=True)], object)
        weights = 1 / (np.arange(_VOCABULARY) + 20)  # after Zipf
        self._cumulative = np.cumsum(weights / weights.sum())

    def texts(self, count: int, characters: tuple[int, int]) -> list[str]:
        """`count` texts of about so many characters, from the first to the second number."""
        mean = float(np.vectorize(len)(self._words).mean()) + 1
        sizes = (self._random.integers(*characters, count, endpoint=True) / mean).astype(int) + 1
        words = self._words[np.searchsorted(self._cumulative, self._random.random(sizes.sum()))]
        ends = np.cumsum(sizes)
        return [" ".join(words[end - size : end]) for end, size in zip(ends, sizes, strict=True)]

    def changed(self, text: str, share: float) -> str:
        """The text with a share of its words replaced."""
        words = text.split(" ")
        for place in np.flatnonzero(self._random.random(len(words)) < share):
            words[place] = self._words[self._random.integers(_VOCABULARY)]
        return " ".join(words)

    def number(self, low: float, high: float) -> float:
        """A number between two others."""
        return float(self._random.uniform(low, high))


def jaccard(a: str, b: str, ngram: int) -> float:
    """Exact similarity of two texts' sets of character n-grams."""
    one, other = ({text[i : i + ngram] for i in range(len(text) - ngram + 1)} for text in (a, b))
    return len(one & other) / len(one | other)
