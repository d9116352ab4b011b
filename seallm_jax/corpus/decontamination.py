"""Documents that contain what the evaluation asks for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from seallm_jax.core.corpus_config import DecontaminationConfig
from seallm_jax.corpus.evaluation_texts import EvaluationText
from seallm_jax.corpus.letter_codes import letter_codes
from seallm_jax.corpus.rolling_hash import ngram_hashes

CONTAMINATED = "contaminated"  # the reason of a rejected document
_HAN = (0x3400, 0x9FFF)
_TABLE_LOAD = 16  # cells of the first test for every hash that is looked for
_PAIRS_AT_ONCE = 4096  # that are compared letter by letter


class Decontaminator:
    """Finds documents that share a long run of letters and digits with an evaluation text.

    White space, punctuation and case do not count, so that a changed line break or quotation mark hides nothing. A text
    as long as `config.ngram` is found by any run of that length; a shorter one must occur as a whole, and one under
    `config.minimum` is not looked for.

    Attributes:
      skipped: evaluation texts that are too short.
    """

    def __init__(self, texts: Iterable[EvaluationText], config: DecontaminationConfig):
        self.skipped = 0
        plain, dense = _Index(config.minimum, config.ngram), _Index(max(1, config.minimum // 2), config.dense_ngram)
        seen = set()
        for text in texts:
            codes = letter_codes(text.text)
            index = dense if 2 * _han_letters(codes) > len(codes) else plain
            if (content := codes.tobytes()) in seen:
                continue
            seen.add(content)
            if not index.add(codes, text.source):
                self.skipped += 1
        self._indices = [index for index in (plain, dense) if index.close()]

    def match(self, text: str) -> str | None:
        """Where the first evaluation text stands that the document repeats, as `file.jsonl:12`, or None."""
        codes = letter_codes(text)
        for index in self._indices:
            if (source := index.find(codes)) is not None:
                return source
        return None


class _Index:
    """Texts of one kind of script, by the hashes of some of their n-grams of `width` letters.

    A run of `length` shared letters holds `length - width + 1` of them, so one in so many is enough to find every such
    run. What the hashes bring up is compared letter by letter.
    """

    def __init__(self, width: int, length: int):
        self._width, self._length = width, length
        self._reach = length - width  # a match extends so far beyond an n-gram
        self._sources: list[str] = []
        self._codes: list[np.ndarray] = [np.zeros(self._reach, np.uint32)]
        self._size = self._reach
        self._found: list[tuple[np.ndarray, np.ndarray, int]] = []  # hashes, their positions, text

    def add(self, codes: np.ndarray, source: str) -> bool:
        """Takes a text, unless it is shorter than the n-grams."""
        if len(codes) < self._width:
            return False
        step = min(self._length, len(codes)) - self._width + 1
        # from the last n-gram backwards, too: the end of a text is as good as its beginning
        chosen = np.unique(np.append(np.arange(0, len(codes) - self._width + 1, step), len(codes) - self._width))
        self._found.append((ngram_hashes(codes, self._width)[chosen], self._size + chosen, len(codes)))
        gap = np.zeros(self._reach, np.uint32)  # 0 is no letter: a match ends there
        self._codes += [codes, gap]
        self._size += len(codes) + len(gap)
        self._sources.append(source)
        return True

    def close(self) -> bool:
        """Prepares the search. False when there is nothing to look for."""
        if not self._found:
            return False
        hashes = np.concatenate([hashes for hashes, _, _ in self._found])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._positions = np.concatenate([positions for _, positions, _ in self._found])[order]
        self._texts = np.repeat(np.arange(len(self._found)), [len(hashes) for hashes, _, _ in self._found])[order]
        self._required = np.minimum([length for _, _, length in self._found], self._length)
        self._evaluation = np.concatenate(self._codes)
        bits = max(16, (_TABLE_LOAD * len(hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[self._hashes >> self._shift] = True
        self._found, self._codes = [], []
        return True

    def find(self, codes: np.ndarray) -> str | None:
        """Source of the first text that shares enough letters with the document."""
        if len(codes) < self._width:
            return None
        hashes = ngram_hashes(codes, self._width)
        places = np.flatnonzero(self._table[hashes >> self._shift])
        if not len(places):
            return None
        first = np.searchsorted(self._hashes, hashes[places])
        counts = np.searchsorted(self._hashes, hashes[places], side="right") - first
        entries = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        places = np.repeat(places, counts)
        for start in range(0, len(places), _PAIRS_AT_ONCE):
            block = slice(start, start + _PAIRS_AT_ONCE)
            shared = self._shared_letters(codes, places[block], self._positions[entries[block]])
            enough = np.flatnonzero(shared >= self._required[self._texts[entries[block]]])
            if len(enough):
                return self._sources[self._texts[entries[start + enough[0]]]]
        return None

    def _shared_letters(self, codes: np.ndarray, places: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Length of the common run around each pair of positions, counted up to `reach` letters on either side."""
        # 1 is no letter either, and differs from the 0 between the evaluation texts
        document = np.pad(codes, self._reach, constant_values=1)
        places = places + self._reach
        offsets = np.arange(-self._reach, self._width + self._reach)
        equal = document[places[:, None] + offsets] == self._evaluation[positions[:, None] + offsets]
        left = np.minimum.accumulate(equal[:, : self._reach][:, ::-1], axis=1).sum(axis=1)
        right = np.minimum.accumulate(equal[:, self._reach + self._width :], axis=1).sum(axis=1)
        middle = equal[:, self._reach : self._reach + self._width].all(axis=1)  # unless two hashes are equal by chance
        return np.where(middle, left + self._width + right, 0)


def _han_letters(codes: np.ndarray) -> int:
    return int(((codes >= _HAN[0]) & (codes <= _HAN[1])).sum())
