"""MinHash signatures over character n-grams, and the bands that bring similar ones together.

Characters instead of words, because Thai, Lao, Khmer and Burmese write no spaces between words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seallm_jax.corpus.rolling_hash import mix, ngram_hashes, span_hashes, text_codes

_EMPTY = np.uint32(0xFFFFFFFF)
_ROUND = 0xD1342543DE82EF95
_BAND_RECALL = 0.98  # of the pairs whose similarity equals the threshold


class MinHash:
    """Signatures of `num_hashes` minima whose expected agreement is the Jaccard similarity of the n-gram sets.

    Every n-gram falls into one bin, a bin keeps its smallest hash: one hash an n-gram, not `num_hashes`. Bins that stay
    empty are filled in further rounds with fresh hashes (fast similarity sketching, Dahlgaard, Knudsen and Thorup 2017,
    arXiv 1704.04370), so that the estimate stays unbiased and sharp for short texts, too.
    """

    def __init__(self, *, num_hashes: int, ngram: int):
        self._size = num_hashes  # a power of two
        self._ngram = ngram

    def signatures(self, texts: Sequence[str]) -> np.ndarray:
        """uint16 [len(texts), num_hashes]: the low bits of the minima, which agree by chance once in 65,536 times.

        A text shorter than an n-gram counts as one n-gram.
        """
        hashes, rows = self._shingles(texts)
        minima = np.full(len(texts) * self._size, _EMPTY)
        for turn in range(2 * self._size):
            mixed = mix(hashes + np.uint64(turn * _ROUND & 0xFFFFFFFFFFFFFFFF))
            # the later rounds fill one bin each, so that the loop ends
            last = np.full(len(rows), turn - self._size)
            bins = (mixed & np.uint64(self._size - 1)).astype(np.int64) if turn < self._size else last
            cells = rows * self._size + bins
            values = (mixed >> np.uint64(32)).astype(np.uint32)
            if turn:
                still_empty = minima[cells] == _EMPTY
                cells, values = cells[still_empty], values[still_empty]
            np.minimum.at(minima, cells, values)
            unfinished = (minima.reshape(-1, self._size) == _EMPTY).any(axis=1)[rows]
            hashes, rows = hashes[unfinished], rows[unfinished]
            if not len(rows):
                break
        return minima.reshape(-1, self._size).astype(np.uint16)

    def _shingles(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all n-grams of all texts (uint64), and the text of each (int64)."""
        lengths = np.array([len(text) for text in texts], np.int64)
        starts = np.cumsum(lengths) - lengths
        codes = text_codes("".join(texts))
        counts = np.maximum(lengths - self._ngram + 1, 0)  # n-grams that do not run into the next text
        rows = np.repeat(np.arange(len(texts)), counts)
        shift = np.repeat(starts - (np.cumsum(counts) - counts), counts)
        hashes = ngram_hashes(codes, self._ngram)[np.arange(len(rows)) + shift]
        short = np.flatnonzero(counts == 0)
        if len(short):
            whole = span_hashes(codes, starts[short], starts[short] + lengths[short])
            hashes, rows = np.concatenate([hashes, whole]), np.concatenate([rows, short])
        return hashes, rows


def choose_bands(threshold: float, num_hashes: int) -> tuple[int, int]:
    """(bands, rows): the longest bands that still bring together 98 % of the pairs as similar as the threshold."""
    for rows in range(num_hashes, 0, -1):
        bands = num_hashes // rows
        if candidate_probability(threshold, bands, rows) >= _BAND_RECALL:
            return bands, rows
    return num_hashes, 1


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Chance that two texts of a Jaccard similarity agree in at least one band: the S-curve of LSH."""
    return 1 - (1 - similarity**rows) ** bands


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [bands, texts]: one key for the values of each band of uint16 [texts, num_hashes]."""
    keys = np.empty((bands, len(signatures)), np.uint64)
    for band in range(bands):
        keys[band] = _combine(signatures[:, band * rows : (band + 1) * rows])
    return keys


def estimated_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [pairs]: share of the minima that agree, of uint16 [pairs, num_hashes] each."""
    return (a == b).mean(axis=1)


def _combine(values: np.ndarray) -> np.ndarray:
    key = np.zeros(len(values), np.uint64)
    for column in values.T:
        key = mix((key + np.uint64(1)) * np.uint64(_ROUND) + column)
    return key
