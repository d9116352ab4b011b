"""Vowel and tone marks of Thai and Lao in the order of the Unicode standard.

A syllable is written consonant, vowel above or below, tone mark or silencer, following vowel. Keyboards and old
converters leave other orders that look the same on the screen, and Unicode normalisation does not touch them. Thai and
Lao stand at the same places of their blocks, 0x80 apart, so that one set of rules serves both.
"""

from __future__ import annotations

import re

# offsets from U+0E00: the parts of a syllable after its consonant
_BELOW_CONSONANT = (0x3C,)  # Lao only: the second half of a consonant cluster
_VOWELS = (0x31, *range(0x34, 0x3C), 0x47, 0x4E)
_NIKHAHIT, _TONES, _SILENCER = 0x4D, (0x48, 0x49, 0x4A, 0x4B), 0x4C
_A, _AA, _AM, _LONG_AA = 0x30, 0x32, 0x33, 0x45
_E, _AE = 0x40, 0x41
_THAI, _LAO = 0x0E00, 0x0E80

_SUBSCRIPT, _VOWEL, _DOT, _TONE, _SILENT, _FOLLOWING = range(6)
_RANK = {
    chr(block + offset): rank
    for block in (_THAI, _LAO)
    for rank, offsets in enumerate((_BELOW_CONSONANT, _VOWELS, (_NIKHAHIT,), _TONES, (_SILENCER,), (_A, _AA, _AM)))
    for offset in offsets
    if block == _LAO or offset != 0x3C and offset != 0x3B
}


def _characters(*offsets: int) -> str:
    return "".join(chr(block + offset) for block in (_THAI, _LAO) for offset in offsets)


_OVER = _characters(*_VOWELS, _NIKHAHIT)
_MARKS = _OVER + _characters(*_TONES, _SILENCER)
# signs of a wrong order; texts without any, nearly all, are left alone after one search
_SUSPECT = re.compile(
    f"[{_characters(*_TONES, _SILENCER)}][{_OVER}]"
    f"|[{_characters(*_TONES)}]{{2}}"
    f"|[{_characters(_NIKHAHIT)}][{_characters(*_TONES)}]?[{_characters(_AA, _AM)}]"
    f"|[{_characters(_A, _AA, _AM)}][{_characters(*_TONES)}]"
    f"|([{_MARKS}{_characters(_AM)}])\\1"
    f"|([{_characters(_E)}])\\2"
    f"|(?<![\u0e24\u0e26])\u0e45"
)
_THAI_OR_LAO = re.compile("[\u0e30-\u0ece]")
_RUN = re.compile(f"[{''.join(_RANK)}]{{2,}}")
_LONG_AA_ALONE = re.compile("(?<![\u0e24\u0e26])\u0e45")


def order_vowels(text: str) -> str:
    """Puts the marks of each Thai or Lao syllable into canonical order, and writes a repeated mark once.

    AM in two parts becomes one letter with the tone mark before it, a doubled E becomes AE, the last of several tone
    marks stays, and the Thai letter LAKKHANGYAO becomes AA where it follows no letter that it belongs to. Vowels that
    are lengthened on purpose (AA, A) stay.
    """
    if not _THAI_OR_LAO.search(text) or not _SUSPECT.search(text):
        return text
    text = text.replace("\u0e40\u0e40", "\u0e41").replace("\u0ec0\u0ec0", "\u0ec1")
    return _RUN.sub(lambda match: _ordered(match[0]), _LONG_AA_ALONE.sub("\u0e32", text))


def _ordered(run: str) -> str:
    ranks = [_RANK[character] for character in run]
    marks = dict.fromkeys(c for c, rank in zip(run, ranks, strict=True) if rank < _TONE)
    tones = [c for c, rank in zip(run, ranks, strict=True) if rank == _TONE][-1:]
    silencers = dict.fromkeys(c for c, rank in zip(run, ranks, strict=True) if rank == _SILENT)
    following = [c for c, rank in zip(run, ranks, strict=True) if rank == _FOLLOWING]
    for dot, aa, am in (("\u0e4d", "\u0e32", "\u0e33"), ("\u0ecd", "\u0eb2", "\u0eb3")):
        if dot in marks and following and following[0] in (aa, am):
            del marks[dot]
            following[0] = am
        while following[:2] == [am, am]:
            del following[0]
    return "".join([*sorted(marks, key=_RANK.__getitem__), *tones, *silencers, *following])
