"""Templates hold what they are given."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.parallel_templates import LETTERS, write_pair

SENTENCE = st.text("abc {}%\\|ကขกខกា", min_size=1, max_size=20)


@settings(deadline=None)
@given(st.sampled_from(LETTERS), SENTENCE, SENTENCE)
def test_every_template_holds_both_sides_and_their_order(letter, sentence, translation):
    text = write_pair(letter, sentence, translation, ("English", "Khmer"))
    if letter == "K":
        assert json.loads(text) == {"English": sentence, "Khmer": translation}
    else:
        marked = write_pair(letter, "\0", "\1", ("English", "Khmer"))
        assert text == marked.replace("\0", "\2").replace("\1", translation).replace("\2", sentence)
        assert (marked.index("\0") < marked.index("\1")) == (letter != "F")
    assert text != write_pair(letter, translation, sentence, ("Khmer", "English")) or sentence == translation


def test_eleven_different_templates():
    assert tuple("ABCDEFGHIJK") == LETTERS
    assert len({write_pair(letter, "x", "y", ("English", "Khmer")) for letter in LETTERS}) == 11
    expected = "Translate the text from English to Khmer:\nEnglish text: x\nKhmer text: y"
    assert write_pair("A", "x", "y", ("English", "Khmer")) == expected
