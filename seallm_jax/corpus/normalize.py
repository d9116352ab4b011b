"""Unicode normalisation that keeps what the scripts of the region need."""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 control characters except tab and newline, the byte-order mark and the replacement of unpaired surrogates.
# Zero-width space, joiner and non-joiner stay: Khmer, Lao and Burmese text uses them as word breaks and shaping hints.
_REMOVED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029")
_TRAILING_SPACE = re.compile("[ \t]+\n")
_BLANK_LINES = re.compile("\n{3,}")


def normalize_text(text: str) -> str:
    """NFC form with \\n line ends, without control characters, trailing spaces and runs of blank lines.

    NFC and never NFKC: compatibility folding splits the Thai and Lao vowel AM and changes the text that a model has to
    produce. The result is a fixed point: normalising again changes nothing.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _REMOVED.sub("", text)
    text = unicodedata.normalize("NFC", text)
    text = _TRAILING_SPACE.sub("\n", text)
    return _BLANK_LINES.sub("\n\n", text).strip(" \t\n")
