"""A text as its letters, marks and digits alone."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

from seallm_jax.corpus.rolling_hash import text_codes

_TABLE_SIZE = 0x20000  # further planes hold Chinese characters, kept as they are


def letter_codes(text: str) -> np.ndarray:
    """uint32 code points of the letters, marks and digits of a text, in NFC and without case.

    White space, punctuation, symbols and control characters, also zero-width ones, are left out.
    """
    codes = text_codes(unicodedata.normalize("NFC", text))
    table = _table()
    if len(codes) and codes.max() >= _TABLE_SIZE:
        codes = np.where(codes < _TABLE_SIZE, table[np.minimum(codes, _TABLE_SIZE - 1)], codes)
    else:
        codes = table[codes]
    return codes[codes != 0]


@functools.cache
def _table() -> np.ndarray:
    """The lower-case form of every code point that counts, 0 for the others."""
    table = np.zeros(_TABLE_SIZE, np.uint32)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            lower = character.lower()
            table[code] = ord(lower) if len(lower) == 1 else code
    return table
