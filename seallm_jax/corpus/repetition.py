"""How much a text repeats itself: lines, paragraphs, n-grams."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from seallm_jax.corpus.rolling_hash import ngram_hashes, text_codes


def duplicate_share(parts: Sequence[str]) -> float:
    """Characters in parts (lines, paragraphs) that repeat an earlier part, as a share of all characters."""
    distinct = set(parts)
    if len(distinct) == len(parts):
        return 0.0
    total = sum(map(len, parts))
    return 1 - sum(map(len, distinct)) / total if total else 0.0


def repetition_bounds(words: Sequence[str], *, top: int, duplicate: int) -> tuple[float, float]:
    """Upper bounds of what `ngram_repetition` returns, found at a fraction of its cost.

    An n-gram occurs at most as often as its first two words do, and is repeated only where they are. Both `top` and
    `duplicate` are at least 2.
    """
    counts = collections.Counter(zip(words, words[1:], strict=False))
    most = max(counts.values(), default=0)
    repeated, ngrams = len(words) - 1 - len(counts), len(words) - duplicate + 1
    return most * top / max(1, len(words)), repeated / ngrams if ngrams > 0 else 0.0


def unit_codes(text: str, *, words: Sequence[str] | None) -> np.ndarray:
    """A text as numbers, equal where its units are: words if they are given, else its characters without white space.

    Numbers of words differ from process to process.
    """
    if words is None:
        return text_codes("".join(text.split()))
    return np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)


def ngram_repetition(codes: np.ndarray, *, top: int, duplicate: int, tolerated: float = 0.0) -> tuple[float, float]:
    """How much of a text its most frequent n-gram of `top` units covers, and the share of repeated `duplicate`-grams.

    Both are 0 for texts that are too short to repeat anything. An n-gram that occurs up to three times covers nothing:
    any short text, a law above all, says something three times. Of a share of repeated n-grams that is certainly below
    `tolerated` an upper bound is returned, found without counting them: they are repeated only where shorter ones are.
    """
    if len(codes) < 2 * duplicate and len(codes) < 4 * top:
        return 0.0, 0.0
    counts = _counts(ngram_hashes(codes, top))
    most = int(counts.max())
    top_share = min(1.0, most * top / len(codes)) if most > 3 and len(codes) >= 4 * top else 0.0
    if len(codes) < 2 * duplicate:
        return top_share, 0.0
    bound = int((counts - 1).sum()) / (len(codes) - duplicate + 1)
    if duplicate >= top and bound <= tolerated:
        return top_share, bound
    hashes = ngram_hashes(codes, duplicate)
    return top_share, 1 - len(_counts(hashes)) / len(hashes)


def _counts(hashes: np.ndarray) -> np.ndarray:
    """How often each distinct hash occurs."""
    ordered = np.sort(hashes)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return np.diff(np.append(starts, len(ordered)))
