"""The thresholds of the filters, by language."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from seallm_jax.core.errors import SeallmError

# Languages written without spaces between words: counted in characters instead
UNSEGMENTED = frozenset({"th", "lo", "km", "my", "zh"})


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What a document must have to be kept. Shares lie in [0, 1]; a maximum of 1 and a minimum of 0 switch one off.

    The measures are those of Gopher (Rae et al. 2021) and C4 (Raffel et al. 2020), taken so that they mean the same
    with and without spaces between words; the values are ours. Units are words, or characters in unsegmented scripts.

    Attributes:
      minimum_units: words, or letters in unsegmented scripts.
      minimum_word_length: mean characters a word, segmented scripts only.
      maximum_word_length: likewise.
      minimum_letter_share: letters and vowel marks among the characters that are not white space.
      maximum_digit_share: digits among them.
      maximum_symbol_share: symbols (also emoji), hash signs and ellipses among them.
      maximum_duplicate_line_share: characters in lines that repeat an earlier line of the document.
      maximum_duplicate_paragraph_share: likewise for paragraphs.
      maximum_top_ngram_share: part of the document that its most frequent n-gram of `top_ngram` units covers.
      maximum_duplicate_ngram_share: n-grams of `duplicate_ngram` units that occurred before in the document.
      top_ngram: units of the n-gram that is counted for the first of the two.
      duplicate_ngram: units of the n-gram that is counted for the second.
      maximum_bullet_share: lines that begin with a bullet, among at least `minimum_list_lines` lines.
      maximum_ellipsis_share: lines that end with an ellipsis, likewise.
      minimum_list_lines: documents with fewer lines are no lists.
      maximum_boilerplate_share: characters in short lines about cookies, scripts, copyright and the like.
      minimum_function_words: distinct frequent words of the language in a document of at least `function_word_units`.
      function_word_units: shorter documents need none.
      maximum_perplexity: by the KenLM model of the language, where there is one.
    """

    minimum_units: float = 5
    minimum_word_length: float = 2.5
    maximum_word_length: float = 12
    minimum_letter_share: float = 0.6
    maximum_digit_share: float = 0.25
    maximum_symbol_share: float = 0.1
    maximum_duplicate_line_share: float = 0.3
    maximum_duplicate_paragraph_share: float = 0.3
    maximum_top_ngram_share: float = 0.2
    maximum_duplicate_ngram_share: float = 0.3
    top_ngram: float = 3
    duplicate_ngram: float = 5
    maximum_bullet_share: float = 0.9
    maximum_ellipsis_share: float = 0.3
    minimum_list_lines: float = 5
    maximum_boilerplate_share: float = 0.3
    minimum_function_words: float = 2
    function_word_units: float = 40
    maximum_perplexity: float = math.inf


# A word of these scripts has about four characters, so that the n-grams cover the same stretch of text.
_UNSEGMENTED_DEFAULTS = Thresholds(
    minimum_units=15,
    top_ngram=8,
    duplicate_ngram=20,
    minimum_word_length=0,
    maximum_word_length=math.inf,
    function_word_units=200,
)
_SEGMENTED_DEFAULTS = Thresholds()
# Where a language needs other values than its kind of script
_TABLE: Mapping[str, Mapping[str, float]] = {
    # one syllable a word
    "vi": {"minimum_word_length": 2, "maximum_word_length": 8, "duplicate_ngram": 7},
    # long compounds of many marks
    "ta": {"maximum_word_length": 18},
    # more marks a syllable than Thai and Lao
    "km": {"top_ngram": 10, "duplicate_ngram": 25},
    "my": {"top_ngram": 12, "duplicate_ngram": 30},
    # a character is a syllable, often a word
    "zh": {"minimum_units": 8, "top_ngram": 4, "duplicate_ngram": 10, "function_word_units": 60},
}


def thresholds(language: str, overrides: Mapping[str, Mapping[str, float]] | None = None) -> Thresholds:
    """The thresholds of a language, with the overrides for "*" and then for its code applied.

    Raises:
      SeallmError: an override of a threshold that does not exist.
    """
    values = _UNSEGMENTED_DEFAULTS if language in UNSEGMENTED else _SEGMENTED_DEFAULTS
    values = dataclasses.replace(values, **_TABLE.get(language, {}))
    for code in ("*", language):
        changes = (overrides or {}).get(code, {})
        known = {field.name for field in dataclasses.fields(Thresholds)}
        for name in changes:
            if name not in known:
                raise SeallmError(
                    f"config.corpus.filters.thresholds[{code!r}] has the unknown threshold {name!r}; "
                    f"there are {', '.join(sorted(known))}"
                )
        values = dataclasses.replace(values, **changes)
    return values
