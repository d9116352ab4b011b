"""Language identification: the script decides where it can, py3langid decides the rest."""

from __future__ import annotations

import functools
import re

from seallm_jax.core.languages import KNOWN_LANGUAGES

# Scripts that one language of the region owns. Ranges are the Unicode blocks of the script.
SCRIPT_RANGES = {
    "Thai": "\u0e01-\u0e5b",
    "Lao": "\u0e81-\u0edf",
    "Khmer": "\u1780-\u17f9\u19e0-\u19ff",
    "Myanmar": "\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff",
    "Tamil": "\u0b82-\u0bfa",
    "Han": "\u3400-\u9fff\uf900-\ufaff",
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
}
_SCRIPTS = {script: re.compile(f"[{characters}]") for script, characters in SCRIPT_RANGES.items()}
_LANGUAGE_OF_SCRIPT = {"Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my", "Tamil": "ta"}
_SAMPLE_CHARACTERS = 4000  # enough for both methods, and bounds the cost of book-length documents


def script_shares(text: str) -> dict[str, float]:
    """Share of each known script among the letters of the text's beginning; empty when it has none."""
    text = text[:_SAMPLE_CHARACTERS]
    counts = {script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return {script: count / total for script, count in counts.items() if count}


def identify_language(text: str) -> str:
    """Language code of a text, or "" when it has no letters of a known script.

    Thai, Lao, Khmer, Burmese and Tamil are decided by script; the rest by py3langid, which tells Indonesian, Malay and
    Javanese apart but knows neither Sundanese nor Minangkabau.
    """
    shares = script_shares(text)
    if not shares:
        return ""
    script = max(shares, key=shares.__getitem__)
    if script in _LANGUAGE_OF_SCRIPT:
        return _LANGUAGE_OF_SCRIPT[script]
    return _classifier()(text[:_SAMPLE_CHARACTERS])[0]


def contradicts_script(text: str, language: str) -> bool:
    """Whether the text has letters, but hardly any (under 5 %) in the script of its claimed language."""
    script = KNOWN_LANGUAGES.get(language, ("", ""))[1]
    shares = script_shares(text)
    return bool(script) and bool(shares) and shares.get(script, 0.0) < 0.05


@functools.cache
def _classifier():
    import py3langid

    return py3langid.classify
