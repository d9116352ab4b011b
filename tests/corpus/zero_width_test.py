"""Zero-width characters by script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.zero_width import clean_zero_width

SPACE, NON_JOINER, JOINER = "\u200b", "\u200c", "\u200d"


@pytest.mark.parametrize("word", ["ขวัญ", "ຂອງ", "ខ្មែរ", "မြန်မာ"])
def test_word_breaks_stay_in_unsegmented_scripts(word):
    assert clean_zero_width(f"{word}{SPACE}{word}") == f"{word}{SPACE}{word}"
    assert clean_zero_width(f"{SPACE}{word}{SPACE}{SPACE}{word}{SPACE} {word}{SPACE}\n{word}{SPACE}") == (
        f"{word}{SPACE}{word} {word}\n{word}"
    )


@pytest.mark.parametrize("text", ["kata{}kata", "từ{}ngữ", "சொல்{}சொல்", "{}word", "word{}"])
def test_word_breaks_go_elsewhere(text):
    assert clean_zero_width(text.format(SPACE)) == text.format("")


def test_joiners_stay_where_they_shape():
    for text in (
        f"ខ{NON_JOINER}ខ",
        f"க்{NON_JOINER}ஷ",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        f"می{NON_JOINER}خواهم",
    ):
        assert clean_zero_width(text) == text
    assert clean_zero_width(f"a{JOINER}b ก{NON_JOINER}ข") == "ab กข"


def test_invisible_rest():
    assert clean_zero_width("ka\u00adta \u200ekata\u2060 \u202akata\u202c") == "kata kata kata"
    assert clean_zero_width("\u200fשלום") == "\u200fשלום"


@given(st.text(st.sampled_from("aកกم \n\u200b\u200c\u200d\u00ad\u200e\u2060\u202a\u2066")))
def test_policies(text):
    assert clean_zero_width(text, "keep") == text
    stripped = clean_zero_width(text, "strip")
    assert not set(stripped) & set("\u200b\u200c\u200d\u00ad\u200e\u2060\u202a\u2066")
    assert clean_zero_width(clean_zero_width(text), "strip") == stripped
