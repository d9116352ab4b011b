"""Zawgyi found and converted, against ICU's converter and Google's detector, on syllables drawn in both encodings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.zawgyi import convert_zawgyi, zawgyi_evidence

ZAWGYI = (
    "\u1019\u102c\u1010\u102d\u1000\u102c "
    "\u1031\u1005\u102c\u1004\u1039\u1037\u1031\u101b\u103d\u102c\u1000\u1039\u1019\u1088"
)
UNICODE = (
    "\u1019\u102c\u1010\u102d\u1000\u102c "
    "\u1005\u1031\u102c\u1004\u1037\u103a\u101b\u103e\u1031\u102c\u1000\u103a\u1019\u103e\u102f"
)
# in Unicode, in Zawgyi
CONSONANTS = [(chr(code), chr(code)) for code in (*range(0x1000, 0x1008), *range(0x1010, 0x101F), 0x1021)]
STACKS = [
    ("\u1039\u1000", "\u1060"),
    ("\u1039\u1010", "\u1071"),
    ("\u1039\u1012", "\u1075"),
    ("\u1039\u1019", "\u107c"),
]
VOWELS = ["", "\u102d", "\u102e", "\u1032", "\u102f", "\u1030", "\u102d\u102f", "\u102c", "\u1036", "\u102f\u1036"]


@st.composite
def syllables(draw) -> tuple[str, str]:
    """One syllable in Unicode and in Zawgyi."""
    unicode, zawgyi = draw(st.sampled_from(CONSONANTS))
    medials = draw(st.sets(st.sampled_from("yrwh"), max_size=2)) if unicode != "\u1005" else set()
    stack = draw(st.sampled_from([("", ""), *STACKS])) if not medials else ("", "")
    unicode, zawgyi = unicode + stack[0], zawgyi + stack[1]
    for name, foreign in (("y", "\u103a"), ("w", "\u103c"), ("h", "\u103d")):
        if name in medials:
            zawgyi += foreign
    for name, own in (("y", "\u103b"), ("r", "\u103c"), ("w", "\u103d"), ("h", "\u103e")):
        if name in medials:
            unicode += own
    before = "\u103b" if "r" in medials else ""
    vowel = draw(st.sampled_from([*VOWELS, "E", "O"]))
    if vowel in "EO" and vowel:
        before, unicode = "\u1031" + before, unicode + "\u1031"
        vowel = "\u102c" if vowel == "O" else ""
    tone = draw(st.sampled_from(["", "\u1038"]))
    final = draw(st.sampled_from(["", "\u1000", "\u1014", "\u1019"])) if not vowel and not tone and not before else ""
    unicode += vowel + tone + (final + "\u103a" if final else "")
    zawgyi = before + zawgyi + vowel + tone + (final + "\u1039" if final else "")
    return unicode, zawgyi


@given(st.lists(syllables(), max_size=8))
def test_drawn_syllables(drawn):
    unicode, zawgyi = ("".join(parts) for parts in zip(*drawn, strict=True)) if drawn else ("", "")
    assert convert_zawgyi(f"{ZAWGYI} {zawgyi}") == f"{UNICODE} {unicode}"


@settings(deadline=None)
@given(st.lists(syllables(), max_size=8))
def test_icu_agrees(drawn):
    icu = pytest.importorskip("icu")
    zawgyi = f"{ZAWGYI} " + "".join(part for _, part in drawn)
    assert convert_zawgyi(zawgyi) == icu.Transliterator.createInstance("Zawgyi-my").transliterate(zawgyi)


@settings(deadline=None, max_examples=50, derandomize=True)  # the detector errs on unlikely text, too
@given(st.lists(syllables(), min_size=40, max_size=50))
def test_detector_agrees(drawn):
    detector = pytest.importorskip("myanmartools").ZawgyiDetector()
    for text in ("".join(part) for part in zip(*drawn, strict=True)):
        probability, evidence = detector.get_zawgyi_probability(text), zawgyi_evidence(text)
        if abs(evidence) > 8 and not 0.01 < probability < 0.99:
            assert (evidence > 0) == (probability > 0.5)


def test_only_zawgyi_lines_change():
    text = f"{UNICODE}\n{ZAWGYI}\nkucing\n\nภาษาไทย"
    assert convert_zawgyi(text) == f"{UNICODE}\n{UNICODE}\nkucing\n\nภาษาไทย"


def test_running_unicode_text_stays():
    for record in read_jsonl(sample_path("corpus") / "my.jsonl"):
        assert zawgyi_evidence(record["text"]) < 0
        assert convert_zawgyi(record["text"]) == record["text"]


@given(st.text(st.characters(min_codepoint=0x1000, max_codepoint=0x109F)))
def test_no_zawgyi_is_left(text):
    once = convert_zawgyi(text)
    assert convert_zawgyi(once) == once


def test_what_the_published_rules_miss():
    # a word-initial digit that stands for a letter, and the sign that Zawgyi draws as a whole word
    assert convert_zawgyi(f"{ZAWGYI} \u1040\u101a\u1039") == f"{UNICODE} \u101d\u101a\u103a"
    assert convert_zawgyi(f"{ZAWGYI} \u1044\u1004\u1039\u1038") == f"{UNICODE} \u104e\u1004\u103a\u1038"
    assert convert_zawgyi(f"{ZAWGYI} \u1041\u1040\u1040") == f"{UNICODE} \u1041\u1040\u1040"
