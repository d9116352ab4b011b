"""The pattern that cuts text into words before byte-level BPE, and the same with marks kept with their letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer

# what `ByteLevel` with `use_regex` cuts by
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

MARKS_NOTE = (
    "its pattern keeps marks with their letters; beside a config.json with model_type qwen2, AutoTokenizer of "
    "transformers 5 puts Qwen2's own pattern back: load it with PreTrainedTokenizerFast there"
)


def mark_aware(base: ByteLevelTokenizer) -> ByteLevelTokenizer:
    """The tokenizer with a pattern that does not cut at combining marks; the same object when its own does not.

    The patterns of GPT-2, Llama 3 and Qwen take `\\p{L}+` for a word. The vowel signs and tone marks of Thai, Lao,
    Khmer, Burmese and Tamil are `\\p{M}`, so each of them ends a word, and no merge can cross it. Here `\\p{M}` goes
    wherever `\\p{L}` does. Vocabulary and merges stay, so text whose words do not change keeps its ids.
    """
    pre_tokenizer = _with_marks(base.spec["pre_tokenizer"])
    if pre_tokenizer == base.spec["pre_tokenizer"]:
        return base
    spec = base.spec | {"pre_tokenizer": pre_tokenizer}
    template = base.chat_template if base.has_own_template else None
    return ByteLevelTokenizer(spec, base.config, chat_template=template, notes=(*base.notes, MARKS_NOTE))


def pattern_drift(
    base: ByteLevelTokenizer, texts_by_language: Mapping[str, Iterable[str]], *, threads: int = 0
) -> dict[str, float]:
    """Share of each language's non-empty lines whose ids change because of the mark-aware pattern alone."""
    from seallm_jax.tokenization.fertility import identity_rate

    changed = mark_aware(base)
    return {
        language: 1 - identity_rate(base, changed, texts, threads=threads)
        for language, texts in texts_by_language.items()
    }


def _with_marks(step: dict[str, Any]) -> dict[str, Any]:
    if step["type"] == "Sequence":
        return step | {"pretokenizers": [_with_marks(inner) for inner in step["pretokenizers"]]}
    if step["type"] == "Split" and "Regex" in step["pattern"]:
        return step | {"pattern": {"Regex": marked_pattern(step["pattern"]["Regex"])}}
    if step["type"] == "ByteLevel" and step.get("use_regex", True):
        cut = {
            "type": "Split",
            "pattern": {"Regex": marked_pattern(GPT2_PATTERN)},
            "behavior": "Isolated",
            "invert": False,
        }
        return {"type": "Sequence", "pretokenizers": [cut, step | {"use_regex": False}]}
    return step


def marked_pattern(pattern: str) -> str:
    """A regular expression with `\\p{M}` beside every `\\p{L}`; unchanged when it knows `\\p{M}` or not `\\p{L}`."""
    if r"\p{M}" in pattern:
        return pattern
    result, in_class, at = [], False, 0
    while at < len(pattern):
        if pattern.startswith(r"\p{L}", at):
            result.append(r"\p{L}\p{M}" if in_class else r"[\p{L}\p{M}]")
            at += 5
            continue
        if pattern[at] == "\\":
            result.append(pattern[at : at + 2])
            at += 2
            continue
        in_class = pattern[at] == "[" or (in_class and pattern[at] != "]")
        result.append(pattern[at])
        at += 1
    return "".join(result)
