"""Language identification on the embedded sample."""

import pytest

from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.language import contradicts_script, identify_language, script_shares


@pytest.mark.parametrize("code", ["en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv"])
def test_sample_documents(code):
    records = list(read_jsonl(sample_path("corpus") / f"{code}.jsonl"))
    hits = sum(identify_language(record["text"]) == code for record in records)
    assert hits >= 0.9 * len(records)
    assert not any(contradicts_script(record["text"], code) for record in records)


def test_no_letters():
    assert identify_language("12345 ... !!!") == "" and script_shares("…") == {}
    assert not contradicts_script("12345", "km")


def test_wrong_script():
    assert contradicts_script("Only English words here", "km")
    assert not contradicts_script("សួស្តី hello there friend, this is mixed ភាសា", "km")
