"""Letters, marks and digits, against the Unicode database."""

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.letter_codes import letter_codes


@settings(deadline=None)
@given(st.text(max_size=60))
def test_letters_marks_and_digits_in_lower_case(text):
    kept = [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] in "LMN" or ord(c) >= 0x20000]
    # a few capitals become two code points in lower case and stay
    expected = "".join(c.lower() if len(c.lower()) == 1 and ord(c) < 0x20000 else c for c in kept)
    assert "".join(map(chr, letter_codes(text))) == expected


def test_vowel_signs_count_and_zero_width_space_does_not():
    assert "".join(map(chr, letter_codes("ກິນ\u200bເຂົ້າ, ภาษาไทย!"))) == "ກິນເຂົ້າภาษาไทย"
