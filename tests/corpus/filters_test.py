"""Filters: good text of every language passes, each kind of bad text is named, thresholds are overridden."""

import pytest

from seallm_jax.core.corpus_config import FilterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.filters import TextFilter
from seallm_jax.corpus.function_words import count_function_words
from seallm_jax.corpus.thresholds import UNSEGMENTED, thresholds

SAMPLE = ["en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv"]


def sample_texts(code: str) -> list[str]:
    return [record["text"] for record in read_jsonl(sample_path("corpus") / f"{code}.jsonl")]


@pytest.mark.parametrize("code", SAMPLE)
def test_good_text_is_kept(code):
    filters = TextFilter()
    assert [filters.reason(text, code) for text in sample_texts(code)] == [None] * len(sample_texts(code))
    # as single lines, too: thresholds do not depend on a document being long
    lines = (sample_path("parallel") / f"{code}.txt").read_text(encoding="utf-8").splitlines()
    assert sum(filters.reason(line, code) is None for line in lines) >= 0.95 * len(lines)


@pytest.mark.parametrize("code", SAMPLE)
def test_bad_text_is_named(code):
    filters = TextFilter()
    texts = sample_texts(code)
    lines = [line for text in texts for line in text.split("\n") if len(line) > 30][:12]
    good, phrase = "\n".join(lines), lines[0][:18]
    cases = {
        "repeated lines": "\n".join(lines[:2] * 5),
        "repeated paragraphs": "\n\n".join([lines[0] + "\n" + lines[1]] * 4 + [lines[2]]),
        "one phrase over and over": " ".join([phrase] * 30),
        "list of bullets": "\n".join(f"• {line}" for line in lines),
        "lines cut short": "\n".join(line[:40] + "..." for line in lines),
        "many digits": good[:200] + "".join(f" {1000003 * i % 9000000 + 1000000}" for i in range(11)),
        "many symbols": good[:200] + " ★" * 60,
        "few letters": "1. 2. 3. ?! -- // " * 10 + good[:60],
        "boilerplate": "\n".join(["Please enable JavaScript and cookies in your browser settings."] + [good[:30]]),
    }
    reasons = {name: filters.reason(text, code) for name, text in cases.items()}
    # a repeated paragraph repeats its lines
    expected = {name: name for name in cases} | {"repeated paragraphs": "repeated lines"}
    assert reasons == expected
    short = "ក ខ" if code in UNSEGMENTED else "dua kata"
    assert filters.reason(short, code) == ("too few letters" if code in UNSEGMENTED else "too few words")


def test_repeated_paragraphs_of_different_lines():
    text = "\n\n".join(["satu dua tiga empat lima enam tujuh"] * 2 + ["delapan sembilan sepuluh sebelas"])
    loose = {"*": {"maximum_duplicate_line_share": 1, "maximum_duplicate_paragraph_share": 0.3}}
    assert TextFilter(FilterConfig(thresholds=loose)).reason(text, "id") == "repeated paragraphs"


def test_function_words_of_running_text():
    names = " ".join(f"Kota{'abcdefghijklmnopqrstuvwxyz'[i % 26]}{'aeiou'[i % 5]}ran" for i in range(60))
    assert TextFilter().reason(names, "id") == "no function words"
    for code in SAMPLE:
        texts = sorted(map(str.lower, sample_texts(code)), key=len)[-8:]
        found = [count_function_words(text, None if code in UNSEGMENTED else text.split(), code) for text in texts]
        assert min(number or 0 for number in found) >= 2, code
    assert count_function_words("apa", ["apa"], "xx") is None


def test_default_word_filters_would_reject_unsegmented_scripts():
    # what word counts say of good Thai, Khmer, Lao and Burmese: the reason for thresholds in characters
    for code in ("th", "km", "lo", "my"):
        as_words = thresholds("en")
        text = sample_texts(code)[0]
        assert sum(map(len, text.split())) / len(text.split()) > as_words.maximum_word_length


def test_overrides():
    text = sample_texts("km")[0]
    strict = FilterConfig(thresholds={"km": {"minimum_units": 1e6}, "*": {"minimum_units": 10}})
    assert TextFilter(strict).reason(text, "km") == "too few letters"
    assert TextFilter(strict).reason(sample_texts("th")[0], "th") is None
    assert TextFilter(FilterConfig(enabled=False)).reason("", "km") is None
    with pytest.raises(SeallmError, match="unknown threshold 'minimum_unit'"):
        TextFilter(FilterConfig(thresholds={"km": {"minimum_unit": 3}}))


def test_every_known_language_has_thresholds():
    for code in KNOWN_LANGUAGES:
        assert (thresholds(code).maximum_word_length > 100) == (code in UNSEGMENTED)
