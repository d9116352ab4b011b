"""Exact and near duplicates."""

from __future__ import annotations

import hashlib
import re

import numpy as np

NUM_PERMUTATIONS = 128
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SPACE = re.compile(r"\s+")


class DuplicateFilter:
    """Remembers the documents it has seen and names the reason when a new one repeats an earlier one.

    Exact: equal after folding case and white space. Near: MinHash over character n-grams (Broder 1997) with LSH
    (datasketch), a match confirmed by the estimated Jaccard similarity. Characters instead of words, because Thai, Lao,
    Khmer and Burmese write no spaces between words.
    """

    def __init__(self, *, near: bool, threshold: float, ngram: int):
        self._ngram = ngram
        self._threshold = threshold
        self._seen: set[bytes] = set()
        self._index = None
        if near:
            import datasketch

            # the permutations are drawn once and copied into each document's signature
            self._empty_signature = datasketch.MinHash(num_perm=NUM_PERMUTATIONS, hashfunc=int)
            self._index = datasketch.MinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS)
            self._signatures: list[datasketch.MinHash] = []

    def reason(self, text: str) -> str | None:
        """ "exact duplicate", "near duplicate", or None for a new document, which is then remembered."""
        folded = _SPACE.sub(" ", text).strip().casefold()
        digest = hashlib.sha256(folded.encode()).digest()
        if digest in self._seen:
            return "exact duplicate"
        if self._index is not None:
            signature = self._empty_signature.copy()
            signature.update_batch(shingle_hashes(folded, self._ngram).tolist())
            for key in self._index.query(signature):
                if signature.jaccard(self._signatures[key]) >= self._threshold:
                    return "near duplicate"
            self._index.insert(len(self._signatures), signature)
            self._signatures.append(signature)
        self._seen.add(digest)
        return None


def shingle_hashes(text: str, ngram: int) -> np.ndarray:
    """uint32 hashes of the distinct character n-grams of a text (of the whole text when it is shorter)."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    width = max(1, min(ngram, len(codes)))
    count = max(len(codes) - width + 1, 0)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(width):
        hashes = (hashes ^ codes[offset : offset + count]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))
