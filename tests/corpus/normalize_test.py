"""Normalisation: a fixed point, canonical (NFC) and never compatible (NFKC)."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.normalize import normalize_text


@given(st.text())
def test_fixed_point(text):
    once = normalize_text(text)
    assert normalize_text(once) == once


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1))
def test_is_nfc_up_to_outer_space(text):
    assert normalize_text(text) == unicodedata.normalize("NFC", text).strip(" \t\n")


def test_what_nfkc_would_break_stays():
    for text in ("ทำน้ำ", "ຄຳ", "ក\u200bខ", "မြန်မာ\u200c", "①²"):
        assert normalize_text(text) == unicodedata.normalize("NFC", text)


def test_what_goes():
    assert normalize_text("\ufeffa\x00b\r\nc \n\n\n\nd\x1b") == "ab\nc\n\nd"
