"""Character classes, against unicodedata one by one."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.character_classes import DIGIT, LETTER, PUNCTUATION, SPACE, SYMBOL, character_counts


@given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_characters="#…")))
def test_general_category(text):
    major = [unicodedata.category(character)[0] for character in text]
    counts = character_counts(text)
    assert counts[LETTER] == sum(kind in "LM" for kind in major)
    assert counts[DIGIT] == major.count("N") and counts[PUNCTUATION] == major.count("P")
    assert counts[SYMBOL] == major.count("S") and counts[SPACE] == sum(kind in "ZC" for kind in major)


def test_known_text():
    assert character_counts("កម្ពុជា #1 😀… 𠀀").tolist() == [3, 8, 1, 0, 3]
