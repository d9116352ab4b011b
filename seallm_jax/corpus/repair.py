"""Text as it was meant: encoding, Unicode form, order of marks and white space repaired."""

from __future__ import annotations

import re
import unicodedata

import ftfy

from seallm_jax.core.corpus_config import RepairConfig
from seallm_jax.corpus.vowel_order import order_vowels
from seallm_jax.corpus.zawgyi import convert_zawgyi
from seallm_jax.corpus.zero_width import clean_zero_width

PASSES = 4  # what one repair uncovers, the next pass mends; real text needs one
# C0 controls except tab and newline, DEL, the byte-order mark and unpaired surrogates. C1 controls go after mojibake is
# undone: in UTF-8 that was read as Latin-1 they are the second half of a letter.
_REMOVED = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufeff\ud800-\udfff]")
_C1_CONTROLS = re.compile("[\x80-\x9f]")
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029")
_TRAILING_SPACE = re.compile("[ \t]+\n")
_BLANK_LINES = re.compile("\n{3,}")
# the first two bytes of a UTF-8 sequence, read as Latin-1 or Windows-1252; without them nothing is to be undone
_MOJIBAKE = re.compile(
    "[\xc2-\xf4][\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
)


def repair_text(text: str, language: str = "", config: RepairConfig = RepairConfig()) -> str:
    """The text in NFC with \\n line ends, its encoding errors undone and its marks in their canonical order.

    Mojibake (ftfy) and Zawgyi Burmese become Unicode, control characters go, zero-width characters stay only where the
    script has a use for them, and the vowel and tone marks of Thai and Lao stand in the order of the Unicode standard.
    NFC and never NFKC: compatibility folding splits the Thai and Lao vowel AM. The result is a fixed point: repairing
    again changes nothing.

    Args:
      text: any string.
      language: code of the language if known. Zawgyi is looked for in Burmese and where the language is unknown: Shan,
        Mon and Karen use the same code points rightly.
      config: which repairs are made.
    """
    for _ in range(PASSES):
        repaired = _repair_once(text, language, config)
        if repaired == text:
            break
        text = repaired
    return text


def _repair_once(text: str, language: str, config: RepairConfig) -> str:
    text = _REMOVED.sub("", _LINE_ENDS.sub("\n", text))
    if not text.isascii():
        if config.mojibake and _MOJIBAKE.search(text):
            text = ftfy.fix_encoding(text)
        text = _C1_CONTROLS.sub("", text.replace("\x85", "\n"))
        text = unicodedata.normalize("NFC", text)
        text = clean_zero_width(text, config.zero_width)
        if config.zawgyi and language in ("", "my"):
            text = convert_zawgyi(text)
        if config.vowel_order:
            text = order_vowels(text)
    if " \n" in text or "\t\n" in text:
        text = _TRAILING_SPACE.sub("\n", text)
    return _BLANK_LINES.sub("\n\n", text).strip(" \t\n")
