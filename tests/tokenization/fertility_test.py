"""Fertility and its table."""

import numpy as np
import pytest
import scipy.stats

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.fertility import fertility_table, identity_rate, measure, renyi_efficiency


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


def test_byte_share_counts_parts_of_characters(base):
    found = measure(base, ["กa\n"])
    assert (found.tokens, found.byte_tokens) == (5, 3)  # a newline is a byte of its own, not a part
    assert found.byte_share == 0.6
    assert measure(base, []).byte_share == 0


def test_renyi_efficiency_is_one_for_even_use_and_shannon_in_the_limit():
    assert renyi_efficiency(np.full(64, 5), 64) == pytest.approx(1)
    assert renyi_efficiency(np.full(8, 5), 64) == pytest.approx(0.5)
    assert renyi_efficiency(np.asarray([9]), 64) == 0
    assert renyi_efficiency(np.zeros(0), 64) == 0
    counts = np.random.default_rng(0).integers(1, 1000, 50)
    shannon = scipy.stats.entropy(counts) / np.log(64)
    assert renyi_efficiency(counts, 64, order=1 + 1e-7) == pytest.approx(shannon, rel=1e-5)
    assert renyi_efficiency(counts, 64) < shannon


def test_efficiency_of_measured_text(base):
    found = measure(base, ["a\n" * 50])
    assert found.renyi_efficiency == pytest.approx(np.log(2) / np.log(base.size))
