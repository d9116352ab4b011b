"""Order of Thai and Lao marks, against pythainlp on misspelt syllables; Lao by the shift of the block."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.vowel_order import order_vowels

CONSONANTS = "กขคงจชดตทนบปพมรลวสหอ"
ABOVE_BELOW = "\u0e31\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39"
TONES = "\u0e48\u0e49\u0e4a\u0e4b"
TO_LAO = {code: code + 0x80 for code in range(0x0E30, 0x0E4E)}


def thai_syllables():
    consonant, vowel, tone = st.sampled_from(CONSONANTS), st.sampled_from(ABOVE_BELOW), st.sampled_from(TONES)
    return st.one_of(
        st.builds("{}{}{}".format, consonant, tone, vowel),
        st.builds("{}{}{}".format, consonant, vowel, tone),
        st.builds("{}\u0e4d{}\u0e32".format, consonant, tone),
        st.builds("{}\u0e4d\u0e32".format, consonant),
        st.builds("{}\u0e33{}".format, consonant, tone),
        st.builds("{}\u0e30{}".format, consonant, tone),
        st.builds("{0}{1}{2}{2}".format, consonant, vowel, tone),
        st.builds("{0}{1}{1}".format, consonant, vowel),
        st.builds("\u0e40\u0e40{}{}".format, consonant, tone),
    )


@settings(deadline=None)  # the first call imports
@given(st.lists(thai_syllables()).map("".join))
def test_pythainlp_agrees(text):
    pythainlp = pytest.importorskip("pythainlp.util")
    assert order_vowels(text) == unicodedata.normalize("NFC", pythainlp.remove_repeat_vowels(text))


@given(st.lists(thai_syllables()).map("".join))
def test_lao_follows_the_same_rules(text):
    thai = order_vowels(text)
    lao = order_vowels(text.translate(TO_LAO | {0x0E40: 0x0EC0}))
    assert lao == thai.translate(TO_LAO | {0x0E40: 0x0EC0, 0x0E41: 0x0EC1})


@given(st.text(st.sampled_from([chr(code) for code in range(0x0E01, 0x0EDF)])))
def test_fixed_point(text):
    once = order_vowels(unicodedata.normalize("NFC", text))
    assert order_vowels(once) == once


@pytest.mark.parametrize("code", ["th", "lo"])
def test_well_written_text_stays(code):
    for record in read_jsonl(sample_path("corpus") / f"{code}.jsonl"):
        text = record["text"].replace("\u0ecd\u0eb2", "\u0eb3")
        assert order_vowels(text) == text


def test_known_cases():
    cases = {
        "นํ้า": "น้ำ", "น้ํา": "น้ำ", "นำ้": "น้ำ", "ตํ่า": "ต่ำ", "เเปลก": "แปลก", "ท่ี": "ที่", "ทัั้ง": "ทั้ง", "ค่ะ": "ค่ะ",
        "นํ้ำ": "น้ำ", "จ้าาา": "จ้าาา", "ฤๅษี": "ฤๅษี", "ถ้ๅ": "ถ้า", "ນໍ້າ": "ນ້ຳ", "ສໍາ": "ສຳ", "ບ່ໍ": "ບໍ່", "ທີ່ີ່": "ທີ່", "ຫຼິ້ນ": "ຫຼິ້ນ",
    }  # fmt: skip
    assert {wrong: order_vowels(wrong) for wrong in cases} == cases
