"""Zero-width characters: kept where the script has a use for them, removed elsewhere."""

from __future__ import annotations

import re
from typing import Literal

_ALL = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]")
# Thai, Lao, Burmese, Khmer with their further blocks: the zero-width space is their word break
UNSEGMENTED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_SPACE_RUN = re.compile("\u200b{2,}")
_IDLE_SPACE = re.compile(
    "\u200b(?:(?!\\S)"  # before white space or the end
    "|(?<!\\S\u200b)"  # after white space or at the start
    f"|(?<![{UNSEGMENTED}]\u200b)(?![{UNSEGMENTED}]))"  # far from letters that it could separate
)
# Khmer, Burmese and Tamil are shaped by joiners, and emoji are composed with them; Latin, Thai and Lao are not
_IDLE_JOINER = re.compile("[\u200c\u200d](?:(?!\\S)|(?<![^\x00-\u036f\u0e00-\u0eff\u2000-\u206f].))")
_NEVER = re.compile("[\u00ad\u2060-\u2064\u206a-\u206f]")  # soft hyphen, word joiner, operators, deprecated
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


def clean_zero_width(text: str, policy: Literal["script", "keep", "strip"] = "script") -> str:
    """Applies a policy to the invisible characters of a text.

    Args:
      text: any string.
      policy: script keeps single zero-width spaces between letters of Thai, Lao, Khmer and Burmese, joiners after
        letters that join and direction marks in text with right-to-left letters, and removes the rest; keep leaves all;
        strip removes all.
    """
    if policy == "keep" or not _ALL.search(text):
        return text
    if policy == "strip":
        return _ALL.sub("", text)
    text = _NEVER.sub("", text)
    if not _RIGHT_TO_LEFT.search(text):
        text = _DIRECTION.sub("", text)
    text = _IDLE_JOINER.sub("", text)
    return _IDLE_SPACE.sub("", _SPACE_RUN.sub("\u200b", text))
