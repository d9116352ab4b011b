"""Hashes of n-grams and spans, against Python strings."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.rolling_hash import mix, ngram_hashes, span_hashes, text_codes

TEXTS = st.text(st.characters(codec=None), max_size=80)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 12))
def test_two_ngrams_have_the_same_hash_exactly_when_they_are_equal(text, width):
    hashes = ngram_hashes(text_codes(text), width)
    ngrams = [text[i : i + width] for i in range(len(text) - width + 1)]
    assert len(hashes) == len(ngrams) and hashes.dtype == np.uint64
    by_hash = {}
    for value, ngram in zip(hashes.tolist(), ngrams, strict=True):
        assert by_hash.setdefault(value, ngram) == ngram
    assert len(by_hash) == len(set(ngrams))


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_span_has_the_same_hash_wherever_it_stands(before, inner, after, other):
    start, end = len(before), len(before) + len(inner)
    found = span_hashes(text_codes(before + inner + after), np.array([start]), np.array([end]))
    alone = span_hashes(text_codes(inner), np.array([0]), np.array([len(inner)]))
    assert found == alone
    different = span_hashes(text_codes(other), np.array([0]), np.array([len(other)]))
    assert (different == alone) == (other == inner)


@settings(deadline=None)
@given(st.text(min_size=3, max_size=40))
def test_ngram_is_a_span(text):
    starts = np.arange(len(text) - 2)
    assert np.array_equal(ngram_hashes(text_codes(text), 3), span_hashes(text_codes(text), starts, starts + 3))


def test_code_zero_counts():
    starts, ends = np.zeros(4, int), np.arange(4)
    assert len(set(span_hashes(text_codes("\0\0\0"), starts, ends).tolist())) == 4


def test_bits_are_spread():
    values = mix(ngram_hashes(text_codes("".join(map(chr, range(0x1000, 0x9000)))), 5))
    ones = [(values >> np.uint64(bit) & np.uint64(1)).mean() for bit in range(64)]
    # 32,764 coin flips a bit: five standard deviations
    assert max(abs(share - 0.5) for share in ones) < 5 * 0.5 / 32764**0.5
