"""The auxiliary space of similarity: counts and projections against slow definitions, and sense on made-up text."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.row_similarity import (
    _with_some_split,
    auxiliary_vectors,
    cooccurrences,
    similarity_weights,
    sparsemax,
)
from seallm_jax.tokenization.row_sources import mean_weights


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (2, 6), elements=st.floats(-3, 3, width=32)))
def test_sparsemax_is_the_closest_point_of_the_simplex(scores):
    found = sparsemax(scores)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for row, point in zip(scores.astype(float), found, strict=True):
        best = scipy.optimize.minimize(
            lambda p, row=row: ((p - row) ** 2).sum(),
            np.full(6, 1 / 6),
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        )
        assert ((point - row) ** 2).sum() <= best.fun + 1e-4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=3), st.integers(1, 3))
def test_cooccurrences_are_counted_within_documents(documents, window):
    expected = np.zeros((5, 5))
    for ids in documents:
        for i, a in enumerate(ids):
            for j, b in enumerate(ids):
                if i != j and abs(i - j) <= window:
                    expected[a, b] += 1 / abs(i - j)
    found = cooccurrences([np.asarray(ids, np.int32) for ids in documents], 5, window).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cooccurrences_do_not_depend_on_the_blocks(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 7, 100).astype(np.int32)
    whole = cooccurrences([ids], 7, 4).toarray()
    monkeypatch.setattr("seallm_jax.tokenization.row_similarity.TOKENS_AT_ONCE", 9)
    np.testing.assert_allclose(cooccurrences([ids], 7, 4).toarray(), whole, rtol=1e-5)


def test_tokens_with_the_same_neighbours_have_the_same_vector():
    draw = np.random.default_rng(0)
    cats, others = np.asarray([[0, 1, 2], [5, 6, 7]]), np.asarray([3, 4, 8])  # 3 is used as 4 is, 8 is not
    stream = []
    for _ in range(3000):
        kind = draw.integers(2)
        stream += [
            draw.choice(cats[kind]),
            others[draw.integers(2)] if kind == 0 else others[2],
            draw.choice(cats[kind]),
        ]
    vectors = auxiliary_vectors(cooccurrences([np.asarray(stream, np.int32)], 9, 1), 4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[3] @ vectors[4] > 0.95 > 0.5 > abs(vectors[3] @ vectors[8])


def test_half_of_the_new_tokens_are_written_in_old_ones(extension):
    base = extension.base_size
    ids = np.arange(base - 5, extension.tokenizer.size, dtype=np.int32)
    (found,) = _with_some_split([ids], extension, np.random.default_rng(0))
    left, expected = list(found), []
    for one in ids:
        if left[len(expected)] == one:
            expected.append(one)
        else:
            expected += extension.source_ids[one - base]
    assert left == expected
    kept = np.isin(np.arange(base, extension.tokenizer.size), found).mean()
    assert 0.4 < kept < 0.6


@pytest.fixture(scope="module")
def weights(extension, sample_texts):
    texts = [text for group in sample_texts.values() for text in group]
    options = {"default": mean_weights(extension), "progress": Progress.silent(), "dimensions": 32}
    return [similarity_weights(extension, texts, seed=seed, **options) for seed in (0, 0, 1)]


def test_similarity_weights(extension, weights):
    first, again, other = weights
    assert first.shape == (len(extension.new_pieces), extension.base_size) and first.dtype == np.float32
    np.testing.assert_allclose(np.asarray(first.sum(axis=1)).ravel(), 1, atol=1e-4)
    assert (abs(first - again)).max() < 1e-5 < (abs(first - other)).max()
    control = [index for index, count in enumerate(extension.frequencies) if not count]
    fallback = mean_weights(extension)
    assert abs(first[control] - fallback[control]).sum() == 0  # chat tokens never occur


def test_nothing_usable_leaves_the_default(extension):
    default = mean_weights(extension)
    found = similarity_weights(extension, ["a"], default=default, seed=0, progress=Progress.silent())
    assert abs(found - default).sum() == 0
