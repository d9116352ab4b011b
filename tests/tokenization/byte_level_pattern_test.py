"""The mark-aware pattern: what it joins, what it leaves alone, and how far old text drifts."""

import hypothesis
import hypothesis.strategies as st
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from seallm_jax.tokenization.byte_level_pattern import GPT2_PATTERN, mark_aware, marked_pattern, pattern_drift
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.rank_files import QWEN_PATTERN


def words(pattern, text):
    step = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return [word for word, _ in step.pre_tokenize_str(text)]


@pytest.mark.parametrize("pattern", [QWEN_PATTERN, GPT2_PATTERN])
@pytest.mark.parametrize("word", ["น้ำตก", "ກິນເຂົ້າ", "ខ្មែរ", "မြန်မာ", "தமிழ்", "e\u0301te\u0301"])
def test_marks_stay_with_their_letters(pattern, word):
    assert len(words(pattern, " " + word)) > 1
    assert words(marked_pattern(pattern), f"x {word}, {word}1") == ["x", " " + word, ",", " " + word, "1"]


@hypothesis.given(text=st.text(st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me"]), max_size=60))
def test_text_without_marks_is_cut_as_before(text):
    for pattern in (QWEN_PATTERN, GPT2_PATTERN):
        assert words(marked_pattern(pattern), text) == words(pattern, text)


def test_the_pattern_is_spelled_out():
    assert marked_pattern(r"[^\r\n\p{L}\p{N}]?\p{L}+|\[\p{L}\]") == (
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\[[\p{L}\p{M}]\]"
    )
    assert marked_pattern(r"[\p{Ll}\p{M}]+\p{L}") == r"[\p{Ll}\p{M}]+\p{L}"


def test_a_pattern_that_knows_marks_is_left_alone(tekken, byte_base):
    assert mark_aware(tekken) is tekken
    changed = mark_aware(byte_base)
    assert changed is not byte_base and mark_aware(changed) is changed
    assert changed.digest != byte_base.digest and changed.size == byte_base.size


def test_gpt2s_own_pattern_is_written_out(byte_base):
    built_in = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    gpt2 = ByteLevelTokenizer(byte_base.spec | {"pre_tokenizer": built_in}, byte_base.config)
    changed = mark_aware(gpt2)
    for text in ("it's 12  words,\n\nand more\t", " the end ", "a1b2"):
        assert changed.encode(text) == gpt2.encode(text)
    assert changed.decode(changed.encode("น้ำตก")) == "น้ำตก"


def test_drift_is_told_by_language(byte_base, sample_texts):
    drift = pattern_drift(byte_base, {code: sample_texts[code][:20] for code in ("en", "th")} | {"none": []})
    assert drift["en"] == 0 and drift["none"] == 0 and 0 <= drift["th"] <= 1
