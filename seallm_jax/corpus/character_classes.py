"""What kind of character stands where: letters, digits, symbols, by the Unicode general category."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

from seallm_jax.corpus.rolling_hash import text_codes

SPACE, LETTER, DIGIT, PUNCTUATION, SYMBOL = range(5)
# Zl, Zp, Cc, Cf... count as white space: they show nothing. A vowel mark is part of a word as a letter is.
_OF_CATEGORY = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE, "C": SPACE}
_TABLE_SIZE = 0x20000  # further planes hold Chinese characters


def character_counts(text: str) -> np.ndarray:
    """int64 [5]: how many characters of each class a text has; hash sign and ellipsis count as symbols."""
    codes = text_codes(text)
    return np.bincount(_table()[np.minimum(codes, _TABLE_SIZE)], minlength=5)


@functools.cache
def _table() -> np.ndarray:
    table = np.full(_TABLE_SIZE + 1, LETTER, np.uint8)
    table[:_TABLE_SIZE] = [_OF_CATEGORY[unicodedata.category(chr(code))[0]] for code in range(_TABLE_SIZE)]
    table[[ord("#"), ord("…")]] = SYMBOL
    return table
