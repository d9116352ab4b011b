"""Hashes of all n-grams of a text, or of any of its spans, without a loop over characters.

A polynomial hash modulo 2**64 over mixed code points: with the sums of all prefixes, the hash of a span takes one
subtraction and one product, however long it is (Karp and Rabin 1987).
"""

from __future__ import annotations

import functools

import numpy as np

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_CODE = np.uint64(0xFF51AFD7ED558CCD)
_MIX = np.uint64(0xC4CEB9FE1A85EC53)


def text_codes(text: str) -> np.ndarray:
    """Code points of a text, uint32 [characters]; unpaired surrogates are kept."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def ngram_hashes(codes: np.ndarray, width: int) -> np.ndarray:
    """uint64 hashes of all runs of `width` codes, [len(codes) - width + 1]; empty for a shorter text."""
    prefixes = _prefix_sums(codes)
    hashes = prefixes[width:] - prefixes[:-width]
    hashes *= _powers(_INVERSE, len(hashes))
    return mix(hashes)


def span_hashes(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """uint64 hashes of the runs `codes[start:end]`; equal runs have equal hashes wherever they stand."""
    prefixes = _prefix_sums(codes)
    hashes = prefixes[ends] - prefixes[starts]
    hashes *= _powers(_INVERSE, len(prefixes))[starts]
    return mix(hashes)


def mix(hashes: np.ndarray) -> np.ndarray:
    """Spreads every bit of uint64 values over all bits, in place (the steps of MurmurHash3's finaliser)."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _prefix_sums(codes: np.ndarray) -> np.ndarray:
    """uint64 [len(codes) + 1]; overflow is the modulus."""
    terms = codes.astype(np.uint64)
    terms += np.uint64(1)  # so that code 0 counts
    terms *= _CODE
    terms ^= terms >> np.uint64(32)
    terms *= _powers(_BASE, len(terms))
    sums = np.zeros(len(terms) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    return sums


def _powers(base: int, count: int) -> np.ndarray:
    """uint64 base ** 0 ... base ** (count - 1)."""
    return _power_table(base, max(1 << 15, 1 << count.bit_length()))[:count]


@functools.lru_cache(maxsize=8)
def _power_table(base: int, size: int) -> np.ndarray:
    table = np.full(size, base, np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)
