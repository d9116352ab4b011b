"""Bits per byte against closed forms."""

import math

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.evaluation.bits_per_byte import BitsPerByte, LanguageBits, _ratio_error, bits_per_byte
from seallm_jax.evaluation.scorer import Scorer

LENGTH = 32

HELDOUT = {"en": ["The tide is high.", "", "Rain " * 30], "km": ["ទឹកជំនន់"], "lo": [""]}


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_each_token(tokenizer, decoder):
    scorer = Scorer(decoder(0.0), sequence_length=LENGTH, batch_rows=8)
    result = bits_per_byte(scorer, tokenizer, HELDOUT)
    assert list(result.by_language) == ["en", "km"]
    english = result.by_language["en"]
    assert (english.documents, english.tokens, english.bytes) == (2, 17 + 150, 17 + 150)
    assert english.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)
    assert english.standard_error == pytest.approx(0.0, abs=1e-5)
    khmer = result.by_language["km"]
    assert khmer.bytes == 24 and khmer.standard_error is None
    assert khmer.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)


def test_bits_are_those_of_the_text_behind_bos(scorer, tokenizer, alone):
    result = bits_per_byte(scorer, tokenizer, {"vi": ["Xin chào", "bạn"]}).by_language["vi"]
    documents = [[256, *"Xin chào".encode()], [256, *"bạn".encode()]]
    assert result.bits == pytest.approx(-sum(alone(ids) for ids in documents) / math.log(2), rel=1e-5)
    assert result.bytes == len("Xin chàobạn".encode())


def test_maximum_documents_takes_the_first(scorer, tokenizer):
    heldout = {"id": ["", "satu", "dua", "tiga"]}
    result = bits_per_byte(scorer, tokenizer, heldout, maximum_documents=2).by_language["id"]
    assert (result.documents, result.bytes) == (2, 7)


def test_the_standard_error_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 500, 200)
    bits = sizes * generator.normal(1.5, 0.3, 200)
    picks = generator.integers(0, 200, (3000, 200))
    bootstrap = (bits[picks].sum(1) / sizes[picks].sum(1)).std()
    assert _ratio_error(bits, sizes) == pytest.approx(bootstrap, rel=0.1)


def result_of(**bits):
    return BitsPerByte({code: LanguageBits(value * 10, 10, 5, 1) for code, value in bits.items()})


def test_changes_are_relative_and_need_the_same_text():
    before, after = result_of(en=1.0, km=4.0, my=3.0), result_of(en=1.1, km=1.0)
    assert after.change_from(before) == pytest.approx({"en": 0.1, "km": -0.75})
    assert after.english_change_from(before) == pytest.approx(0.1)
    assert result_of(km=1.0).english_change_from(before) is None
    with pytest.raises(SeallmError, match="km come from 10 and 12 bytes"):
        BitsPerByte({"km": LanguageBits(1.0, 12, 5, 1)}).change_from(before)


def test_json_is_plain(scorer, tokenizer):
    entry = bits_per_byte(scorer, tokenizer, {"en": ["ab"]}).to_json()["en"]
    assert entry.keys() == {"bits_per_byte", "bits", "bytes", "tokens", "documents", "standard_error"}
    assert {type(value) for value in entry.values()} <= {int, float, type(None)}


def test_no_text_is_an_error(scorer, tokenizer):
    with pytest.raises(SeallmError, match="no held-out text"):
        bits_per_byte(scorer, tokenizer, {"en": [""]})
