"""Repetition, against counting with Python's own containers."""

import collections

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seallm_jax.corpus.repetition import duplicate_share, ngram_repetition, repetition_bounds, unit_codes

TEXTS = st.lists(st.sampled_from(["satu", "dua", "tiga", "empat", "lima"]), max_size=60)


@given(TEXTS, st.integers(2, 6), st.integers(2, 6))
@example(["satu"] * 4, 3, 2)
@example(["satu"] * 4, 6, 2)
def test_words_by_hand(words, top, duplicate):
    found_top, found_duplicate = ngram_repetition(unit_codes("", words=words), top=top, duplicate=duplicate)

    def ngrams(size):
        return collections.Counter(zip(*(words[i:] for i in range(size)), strict=False))

    most = max(ngrams(top).values(), default=0)
    expected = min(1, most * top / len(words)) if most > 3 and len(words) >= 4 * top else 0
    assert found_top == pytest.approx(expected)
    counts = ngrams(duplicate)
    expected = 1 - len(counts) / counts.total() if len(words) >= 2 * duplicate else 0
    assert found_duplicate == pytest.approx(expected)
    bound_top, bound_duplicate = repetition_bounds(words, top=top, duplicate=duplicate)
    assert bound_top >= found_top - 1e-9 and bound_duplicate >= found_duplicate - 1e-9


@given(TEXTS)
def test_characters_are_units_of_unsegmented_text(words):
    text = " ".join(words)
    assert ngram_repetition(unit_codes(text, words=None), top=3, duplicate=5) == pytest.approx(
        ngram_repetition(unit_codes("", words=list("".join(words))), top=3, duplicate=5)
    )


def test_parts():
    assert duplicate_share(["aa", "b", "aa", "aa"]) == pytest.approx(4 / 7)
    assert duplicate_share(["a", "b"]) == duplicate_share([]) == duplicate_share(["", ""]) == 0
