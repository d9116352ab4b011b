"""Language identification: the script decides where it can, then words and py3langid, or a fastText model."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES, language_code
from seallm_jax.corpus.language_words import language_words

# Scripts of the region, as ranges of code points.
SCRIPT_RANGES = {
    "Thai": ((0x0E01, 0x0E5B),),
    "Lao": ((0x0E81, 0x0EDF),),
    "Khmer": ((0x1780, 0x17F9), (0x19E0, 0x19FF)),
    "Myanmar": ((0x1000, 0x109F), (0xAA60, 0xAA7F), (0xA9E0, 0xA9FF)),
    "Tamil": ((0x0B82, 0x0BFA),),
    "Han": ((0x3400, 0x9FFF), (0xF900, 0xFAFF)),
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
}
_SCRIPTS = tuple(SCRIPT_RANGES)
_LANGUAGE_OF_SCRIPT = {"Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my", "Tamil": "ta"}
SAMPLE_CHARACTERS = 2000  # enough for every method, and bounds the cost of book-length documents

_LATIN_WEIGHT = 0.5  # names, code and quotations in Latin letters stand in text of every language
_VIETNAMESE = (*map(ord, "ăđơưĂĐƠƯ"), *range(0x1EA0, 0x1EFA))
_VIETNAMESE_SHARE = 0.04  # of all characters; running text has 0.15 to 0.25
# Log-likelihood a word that the lists must give, on average, to decide without py3langid. Running text of a listed
# language gives 1.5 to 3, of another one at most 0.7.
_EVIDENCE_PER_WORD = 0.8
# and what overrules py3langid where it names a listed language: it does not know the smaller ones
_EVIDENCE_AGAINST = 4.0
_GUESTS = ("fr", "es", "pt", "it", "de", "nl")  # listed to be recognised as strangers; py3langid names them
# Indonesian and Malay share most words: py3langid has a say, with this weight of its log-likelihood ratio
_PAIR = ("id", "ms")
_PAIR_WEIGHT = 0.7
_PAIR_CHARACTERS = 1000
_PAIR_DOUBT = 12.0  # unless the words tell them apart by as much


class LanguageIdentifier:
    """Language code and confidence of a text.

    Without a model: Thai, Lao, Khmer, Burmese and Tamil are known by their script, Vietnamese by its letters; English
    and the Latin-script languages of the region by lists of their words; everything else is left to py3langid (Lui and
    Baldwin 2012). With a model, fastText (Joulin et al. 2016) decides, also for GlotLID's labels such as `ind_Latn`.
    """

    def __init__(self, model: str | pathlib.Path = ""):
        """`model` is a fastText file. Raises SeallmError when it is missing or the package `fasttext` is."""
        self._model = _load_fasttext(pathlib.Path(model)) if model else None

    def identify(self, text: str) -> tuple[str, float]:
        """Code and confidence in [0, 1]; ("", 0) for text without letters of a known script."""
        text = text[:SAMPLE_CHARACTERS]
        if self._model is not None:
            # what `predict` calls; in the original package that one fails with NumPy 2
            found = self._model.f.predict(" ".join(text.split()) + "\n", 1, 0.0, "strict")
            if not found:
                return "", 0.0
            probability, label = found[0]
            return language_code(label.removeprefix("__label__")), min(1.0, float(probability))
        counts = _letter_counts(text)
        shares = _shares(counts)
        if not shares:
            return "", 0.0
        script = max(shares, key=lambda name: shares[name] * (_LATIN_WEIGHT if name == "Latin" else 1))
        if script in _LANGUAGE_OF_SCRIPT:
            return _LANGUAGE_OF_SCRIPT[script], shares[script]
        if script == "Latin" and (share := counts[-1] / len(text)) > _VIETNAMESE_SHARE:
            return "vi", min(1.0, share / (3 * _VIETNAMESE_SHARE))
        return _latin(text) if script == "Latin" else _py3langid(text)


def identify_language(text: str) -> str:
    """Language code of a text, or "" when it has no letters of a known script; see `LanguageIdentifier`."""
    return _default_identifier().identify(text)[0]


def script_shares(text: str) -> dict[str, float]:
    """Share of each known script among the letters of the text's beginning; empty when it has none."""
    return _shares(_letter_counts(text[:SAMPLE_CHARACTERS]))


def contradicts_script(text: str, language: str) -> bool:
    """Whether the text has letters, but hardly any (under 5 %) in the script of its claimed language."""
    script = KNOWN_LANGUAGES.get(language, ("", ""))[1]
    shares = script_shares(text)
    return bool(script) and bool(shares) and shares.get(script, 0.0) < 0.05


def _latin(text: str) -> tuple[str, float]:
    words = language_words()
    scores, num_words = words.scores(text)
    best = int(scores.argmax())
    if scores[best] < _EVIDENCE_PER_WORD * num_words or words.languages[best] in _GUESTS:
        code, confidence = _py3langid(text)
        rival = words.languages.index(code) if code in words.languages and code not in _GUESTS else best
        if rival == best or scores[best] < scores[rival] + _EVIDENCE_AGAINST:
            return code, confidence
    if words.languages[best] in _PAIR:
        first, second = (words.languages.index(code) for code in _PAIR)
        if abs(scores[first] - scores[second]) < _PAIR_DOUBT:
            ratio = _PAIR_WEIGHT * _pair_ratio(text)
            scores[first] += ratio / 2
            scores[second] -= ratio / 2
            best = max(first, second, key=scores.__getitem__)
    # neighbouring words are no independent evidence: the odds grow with the root of their number
    odds = np.exp((scores - scores[best]) / math.sqrt(max(1, num_words)))
    return words.languages[best], float(1 / odds.sum())


def _py3langid(text: str) -> tuple[str, float]:
    scores = dict(_classifier().rank(text))
    best = next(iter(scores))
    # the temperature that py3langid normalises with
    scaled = np.fromiter(scores.values(), np.float64) / math.sqrt(max(1, len(text.encode())))
    return ("", 0.0) if best == "zxx" else (language_code(best), float(1 / np.exp(scaled - scaled[0]).sum()))


def _pair_ratio(text: str) -> float:
    """Log-likelihood ratio of Indonesian to Malay by py3langid."""
    scores = dict(_classifier().rank(text[:_PAIR_CHARACTERS]))
    return scores[_PAIR[0]] - scores[_PAIR[1]]


@functools.cache
def _default_identifier() -> LanguageIdentifier:
    return LanguageIdentifier()


def _letter_counts(text: str) -> np.ndarray:
    """How many characters are in no script, in each of the scripts, and last in the letters of Vietnamese alone."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.bincount(_script_of_code()[codes], minlength=len(_SCRIPTS) + 2)


def _shares(counts: np.ndarray) -> dict[str, float]:
    letters = dict(zip(_SCRIPTS, counts[1:].tolist(), strict=False))
    letters["Latin"] += int(counts[-1])
    total = sum(letters.values())
    return {script: count / total for script, count in letters.items() if count}


@functools.cache
def _script_of_code() -> np.ndarray:
    """uint8: code point -> 1 + index of its script, 0 for none; the letters of Vietnamese have the last number."""
    table = np.zeros(0x110000, np.uint8)
    for index, ranges in enumerate(SCRIPT_RANGES.values(), start=1):
        for first, last in ranges:
            table[first : last + 1] = index
    table[list(_VIETNAMESE)] = len(_SCRIPTS) + 1
    return table


@functools.cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _load_fasttext(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise SeallmError(f"language model {path} does not exist")
    try:
        import fasttext
    except ImportError:
        raise SeallmError(f"reading {path} needs fasttext: pip install 'seallm_jax[fasttext]'") from None
    try:
        return fasttext.load_model(str(path))
    except ValueError as error:
        raise SeallmError(f"{path} is not a fastText model: {error}") from error
