"""Repair: a fixed point, canonical (NFC) and never compatible (NFKC), that leaves good text alone."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import RepairConfig
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.repair import repair_text

SAMPLES = ["en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv"]
TROUBLE = (
    "\u200b\u200c\u00ad\u200e\x85\x9a\xc3\xa9\xe0\xb8\u0e81 \n\r\t\u0301\u20ac\u2028\ufeff\x00\u1031\u1000\u1039\u103b"
)
NOTHING = RepairConfig(mojibake=False, zawgyi=False, vowel_order=False, zero_width="keep")


@given(
    st.one_of(
        st.text(),
        st.text(st.sampled_from(TROUBLE)),
        st.text(st.characters(min_codepoint=0x80, max_codepoint=0x17FF)),
    ),
    st.sampled_from(["", "my", "th"]),
)
def test_fixed_point(text, language):
    once = repair_text(text, language)
    assert repair_text(once, language) == once


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1))
def test_is_nfc_up_to_outer_space(text):
    assert repair_text(text, config=NOTHING) == unicodedata.normalize("NFC", text).strip(" \t\n")


@pytest.mark.parametrize("code", SAMPLES)
def test_good_text_stays(code):
    for record in read_jsonl(sample_path("corpus") / f"{code}.jsonl"):
        text = unicodedata.normalize("NFC", record["text"]).strip()
        if code == "lo":
            text = text.replace("\u0ecd\u0eb2", "\u0eb3")  # AM in two parts
        assert repair_text(text, code) == text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("code", ["vi", "th", "km", "lo", "my", "jv"])
def test_mojibake(code, encoding):
    for record in list(read_jsonl(sample_path("corpus") / f"{code}.jsonl"))[:5]:
        text = repair_text(record["text"], code)
        # Windows-1252 leaves five bytes undefined; browsers read them as Latin-1
        broken = "".join(
            byte.decode("cp1252")
            if encoding == "cp1252" and byte not in b"\x81\x8d\x8f\x90\x9d"
            else byte.decode("latin-1")
            for byte in (bytes([value]) for value in text.encode())
        )
        assert repair_text(broken, code) == text
        assert code == "jv" or repair_text(broken, code, RepairConfig(mojibake=False)) != text


def test_what_nfkc_would_break_stays():
    for text in ("ทำน้ำ", "ຄຳ", "ក\u200bខ", "①²"):
        assert repair_text(text) == text


def test_what_goes():
    assert repair_text("\ufeffa\x00b\r\nc \n\n\n\nd\x1b") == "ab\nc\n\nd"


def test_zawgyi_only_in_burmese():
    zawgyi, unicode = "\u1031\u1000\u102c\u1004\u1039\u1038", "\u1000\u1031\u102c\u1004\u103a\u1038"
    assert repair_text(zawgyi) == repair_text(zawgyi, "my") == unicode
    assert repair_text(zawgyi, "shn") == repair_text(zawgyi, "my", RepairConfig(zawgyi=False)) == zawgyi
