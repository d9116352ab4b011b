"""Counting words in bounded memory."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.tokenization.word_counter import WordCounter


def word(*symbols):
    return np.asarray(symbols, np.int32).tobytes()


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(1, 5)), max_size=40))
def test_exact_while_it_fits(items):
    counter = WordCounter(1 << 20)
    counter.add((word(*symbols), number) for symbols, number in items)
    symbols, lengths, counts = counter.arrays()
    assert counter.threshold == 1 and len(symbols) == lengths.sum()
    parts = np.split(symbols, np.cumsum(lengths)[:-1]) if len(lengths) else []
    expected = collections.Counter()
    for key, number in items:
        expected[tuple(key)] += number
    assert {tuple(part.tolist()): count for part, count in zip(parts, counts.tolist(), strict=True)} == expected


def test_a_sample_keeps_frequent_words_exactly_and_totals_roughly():
    counter = WordCounter(1000)
    frequent = word(1 << 20, 7)
    for number in range(10_000):
        counter.add([(word(number, number), 1), (frequent, 50)])
    symbols, lengths, counts = counter.arrays()
    assert len(symbols) <= 1000 and counter.threshold > 1
    assert counts[symbols[np.cumsum(lengths) - lengths] == 1 << 20].tolist() == [500_000]
    rare = counts[counts < 500_000]
    assert set(rare.tolist()) == {counter.threshold}
    assert 0.8 * 10_000 < rare.sum() < 1.2 * 10_000


def test_it_is_deterministic():
    found = []
    for _ in range(2):
        counter = WordCounter(100)
        counter.add((word(number % 300, number % 7), 1 + number % 3) for number in range(2000))
        found.append(counter.arrays())
    assert all((a == b).all() for a, b in zip(*found, strict=True))
