"""Which aligned sentences are translations of each other, as far as can be told without a model."""

from __future__ import annotations

from collections.abc import Callable

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.corpus.language import contradicts_script

# Characters that a text needs relative to English: means over translations of the same news in NTREX-128, those of
# Javanese to Balinese over NusaX relative to Indonesian. Languages that are not here count as 1.
RELATIVE_LENGTHS = {
    "en": 1.0, "id": 1.15, "ms": 1.1, "vi": 1.1, "th": 0.95, "tl": 1.2, "km": 1.15, "lo": 1.1, "my": 1.2, "ta": 1.15,
    "jv": 1.1, "su": 1.15, "min": 1.1, "ban": 1.15, "zh": 0.33,
}  # fmt: skip
_SLACK = 10  # characters by which short sentences differ without meaning anything
_CERTAIN_CHARACTERS = 40  # from which the identified language of a sentence counts
# languages so close that a sentence does not tell them apart
_CLOSE = ({"id", "ms", "jv", "su", "min", "ban"}, {"tl", "ceb", "ilo", "war"})


def parallel_reason(
    a: str,
    b: str,
    languages: tuple[str, str],
    similarity: float | None,
    config: ParallelConfig,
    identify: Callable[[str], str],
) -> str | None:
    """Why a pair of sentences is left out, or None: empty side, too short, identical sides, low similarity, length
    ratio, wrong language."""
    if not a or not b:
        return "empty side"
    if min(len(a), len(b)) < config.minimum_characters:
        return "too short"
    if a.casefold() == b.casefold():
        return "identical sides"
    if similarity is not None and similarity < config.minimum_similarity:
        return "low similarity"
    if length_ratio(a, b, languages) > config.maximum_length_ratio:
        return "length ratio"
    if config.check_language and (_foreign(a, languages[0], identify) or _foreign(b, languages[1], identify)):
        return "wrong language"
    return None


def length_ratio(a: str, b: str, languages: tuple[str, str]) -> float:
    """How many times longer one side is than the other, in characters corrected for the two languages; at least 1."""
    lengths = [
        (len(text) + _SLACK) / RELATIVE_LENGTHS.get(code, 1.0) for text, code in zip((a, b), languages, strict=True)
    ]
    return max(lengths) / min(lengths)


def _foreign(text: str, language: str, identify: Callable[[str], str]) -> bool:
    """Whether a sentence is certainly not in its language."""
    if contradicts_script(text, language):
        return True
    if len(text) < _CERTAIN_CHARACTERS or language not in KNOWN_LANGUAGES:
        return False
    found = identify(text)
    return found in KNOWN_LANGUAGES and found != language and not any({found, language} <= close for close in _CLOSE)
