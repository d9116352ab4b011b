"""The script of a character, and pieces that may not touch some scripts."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES

ASCII = "ASCII"  # not a script: letters without diacritics, for languages that share the Latin script
_CHINESE_AND_JAPANESE = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "KANGXI", "IDEOGRAPHIC"}
_ALIASES = {"HAN": "CJK", "BURMESE": "MYANMAR", "SIMPLIFIED": "CJK", "TRADITIONAL": "CJK"}


@functools.lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """Name of a letter's or mark's script, in capitals; Chinese characters, kana and bopomofo are one script, CJK.

    Empty for what no script owns: common punctuation, symbols, digits, spaces, combining accents.
    """
    category = unicodedata.category(character)
    word = unicodedata.name(character, "").split(" ")[0]
    word = "CJK" if word in _CHINESE_AND_JAPANESE else word
    if category[0] in "LM":
        return "" if word in ("COMBINING", "VARIATION") else word
    return word if word in _letter_scripts() else ""  # such as the Khmer full stop


def script_guard(protected: Iterable[str]) -> Callable[[str], bool]:
    """Whether a piece leaves text in these scripts alone, as a function of the piece.

    Such a piece has a character of another script. `ASCII` in place of a script protects text without diacritics only:
    a piece passes with any letter beyond ASCII, so that Vietnamese still gains much and English hardly changes.

    Raises:
      SeallmError: a script that does not exist.
    """
    names = {_known_script(name) for name in protected}
    if not names:
        return lambda text: True
    scripts = names - {ASCII}
    guard_ascii = ASCII in names

    def admits(text: str) -> bool:
        return any(
            script and script not in scripts and not (guard_ascii and character.isascii())
            for character in text
            if (script := script_of(character))
        )

    return admits


def _known_script(name: str) -> str:
    script = _ALIASES.get(name.upper(), name.upper())
    if script not in _letter_scripts() | {ASCII}:
        known = sorted({script for _, script in KNOWN_LANGUAGES.values()})
        raise SeallmError(f"no script {name!r}; use a Unicode script such as {', '.join(known)}, or {ASCII}")
    return script


@functools.cache
def _letter_scripts() -> frozenset[str]:
    """The scripts of all letters that are no ideographs, and CJK."""
    words = {
        unicodedata.name(chr(point), "").split(" ")[0]
        for point in range(0x41, 0x1E944)
        if not 0x3400 <= point < 0xA000
        and not 0xAC00 <= point < 0xF900
        and not 0x17000 <= point < 0x18D00
        and unicodedata.category(chr(point)) in ("Lu", "Ll", "Lo")
    }
    return frozenset((words - _CHINESE_AND_JAPANESE) | {"CJK"}) - {""}
