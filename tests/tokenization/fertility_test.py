"""Fertility and its table."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.fertility import fertility_table, identity_rate, measure


@pytest.fixture(scope="module")
def parallel():
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()
        for path in sorted(sample_path("parallel").glob("*.txt"))
    }


def test_measure_counts_tokens_characters_and_bytes(base):
    found = measure(base, ["กข", "a", ""])
    assert (found.documents, found.tokens, found.characters, found.bytes) == (3, 7, 3, 7)
    assert found.tokens_per_byte == 1 and found.tokens_per_character == 7 / 3
    assert measure(base, []).tokens_per_byte == 0


def test_table(base, extension, sample_texts, parallel):
    rows = fertility_table(base, extension.tokenizer, sample_texts, parallel)
    assert [row["language"] for row in rows] == sorted(sample_texts)
    by_language = {row["language"]: row for row in rows}
    english, lao = by_language["en"], by_language["lo"]
    assert english["base_relative"] == 1.0
    assert lao["name"] == "Lao"
    assert lao["base_relative"] > 3 * lao["extended_relative"] > 3
    assert lao["ratio"] == lao["extended_tokens"] / lao["base_tokens"] < 0.5
    assert lao["extended_tokens_per_byte"] == pytest.approx(lao["extended_tokens"] / lao["bytes"])
    assert english["unchanged"] == identity_rate(base, extension.tokenizer, sample_texts["en"])
    assert all(set(row) == set(rows[0]) for row in rows)


def test_table_without_aligned_text_or_held_out_text(base, extension, sample_texts, parallel):
    assert fertility_table(base, extension.tokenizer, sample_texts)[0]["base_relative"] is None
    rows = fertility_table(base, extension.tokenizer, {}, parallel)
    assert rows[0]["ratio"] is None and rows[0]["unchanged"] is None and rows[0]["extended_relative"] > 0


def test_identity(base, extension, sample_texts):
    assert identity_rate(base, base, sample_texts["th"]) == 1
    assert identity_rate(base, extension.tokenizer, sample_texts["th"]) < 0.1
    assert identity_rate(base, extension.tokenizer, []) == 1


def test_wrong_use(base, extension):
    with pytest.raises(SeallmError, match="no text to measure"):
        fertility_table(base, extension.tokenizer, {})
    with pytest.raises(SeallmError, match="not the reference language 'en'"):
        fertility_table(base, extension.tokenizer, {}, {"th": ["a"]})
    with pytest.raises(SeallmError, match="as many sentences"):
        fertility_table(base, extension.tokenizer, {}, {"en": ["a"], "th": ["a", "b"]})
    with pytest.raises(SeallmError, match="is empty"):
        fertility_table(base, extension.tokenizer, {}, {"en": [""], "th": ["a"]})
