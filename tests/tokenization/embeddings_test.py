"""Rows for new tokens."""

from __future__ import annotations

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.vocab_config import INITIALIZATIONS
from seallm_jax.tokenization.embeddings import RowInitializer, initialize_rows
from seallm_jax.tokenization.extend import extend_tokenizer


@pytest.fixture(scope="module")
def matrix(extension):
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((extension.base_size + 7, 16)) @ rng.standard_normal((16, 16)) + 1
    return mixed.astype(np.float32)  # 7 rows of padding in the base


@pytest.fixture(scope="module", params=INITIALIZATIONS)
def initializer(request, extension, base, new_texts):
    texts = [text for group in new_texts.values() for text in group[:10]]
    return RowInitializer(extension, request.param, base=base, texts=texts)


def test_old_rows_are_bit_equal_and_padding_is_zero(initializer, extension, matrix):
    size = extension.tokenizer.size
    before = matrix.copy()
    rows = initializer.rows(matrix, padded_size=size + 40)
    assert rows.dtype == np.float32 and rows.shape == (size + 40, 16)
    np.testing.assert_array_equal(
        rows[: extension.base_size].view(np.uint32), matrix[: extension.base_size].view(np.uint32)
    )
    assert not rows[size:].any() and np.isfinite(rows).all()
    assert rows[extension.base_size : size].any(axis=1).all()
    rows[:] = 1
    np.testing.assert_array_equal(matrix, before)


def test_rows_that_the_base_only_padded_have_no_part(initializer, extension, matrix):
    other = matrix.copy()
    other[extension.base_size :] = 1e6
    np.testing.assert_array_equal(initializer.rows(other), initializer.rows(matrix))


def test_the_same_rows_each_time_and_for_any_matrix(initializer, extension, matrix):
    """The methods that weigh old rows are linear in the matrix, the others are not random between calls."""
    np.testing.assert_array_equal(initializer.rows(matrix), initializer.rows(matrix))
    doubled = initializer.rows(2 * matrix)
    np.testing.assert_allclose(doubled, 2 * initializer.rows(matrix), rtol=1e-4, atol=1e-4)


def test_mean_is_the_mean_of_the_old_tokens(extension, matrix):
    rows = initialize_rows(matrix, extension)
    assert len(rows) == extension.tokenizer.size
    for index, ids in enumerate(extension.source_ids):
        np.testing.assert_allclose(rows[extension.base_size + index], matrix[ids].mean(axis=0), rtol=1e-5, atol=1e-5)


def test_first_is_the_row_of_the_first_old_token(extension, matrix):
    rows = initialize_rows(matrix, extension, "first")
    np.testing.assert_array_equal(rows[extension.base_size :], matrix[[ids[0] for ids in extension.source_ids]])


def test_global_mean_depends_on_the_seed_only(extension, matrix):
    rows = initialize_rows(matrix, extension, "global_mean", seed=1)
    assert (rows != initialize_rows(matrix, extension, "global_mean", seed=2)).any()
    new, old = rows[extension.base_size :], matrix[: extension.base_size]
    np.testing.assert_allclose(new.mean(axis=0), old.mean(axis=0), atol=0.03)
    assert 0.015 < new.std(axis=0).mean() / old.std(axis=0).mean() < 0.025


def test_global_noise_has_the_mean_and_the_covariance_of_the_old_rows(extension, matrix, monkeypatch):
    monkeypatch.setattr("seallm_jax.tokenization.embeddings.ROWS_AT_ONCE", 100)
    old = matrix[: extension.base_size].astype(np.float64)
    drawn = [initialize_rows(matrix, extension, "global_noise", seed=seed)[extension.base_size :] for seed in range(40)]
    new = np.concatenate(drawn).astype(np.float64)
    expected = np.cov(old.T, bias=True)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose((np.cov(new.T) - expected) / scale, 0, atol=0.05)  # 24,000 draws
    np.testing.assert_allclose((new.mean(axis=0) - old.mean(axis=0)) / old.std(axis=0), 0, atol=0.05)


def test_without_new_tokens_only_the_padding_changes(base, new_texts, matrix):
    extension = extend_tokenizer(base, new_texts, 0)
    for method in INITIALIZATIONS:
        rows = RowInitializer(extension, method, base=base, texts=["a"]).rows(matrix, padded_size=base.size + 3)
        np.testing.assert_array_equal(rows[: base.size], matrix[: base.size])
        assert not rows[base.size :].any()


def test_wrong_use(extension, matrix, prefixed_base):
    with pytest.raises(SeallmError, match="does not hold the base tokenizer's 1024 rows"):
        initialize_rows(matrix[:100], extension)
    with pytest.raises(SeallmError, match="padded vocabulary size 1024 is below"):
        initialize_rows(matrix, extension, padded_size=1024)
    with pytest.raises(SeallmError, match="no initialisation 'zero'; use one of mean, "):
        initialize_rows(matrix, extension, "zero")
    for method in ("weighted_mean", "similarity"):
        with pytest.raises(SeallmError, match=f"'{method}' needs text in the new languages"):
            RowInitializer(extension, method)
    for other in (None, prefixed_base):
        with pytest.raises(SeallmError, match="needs the tokenizer that was extended"):
            RowInitializer(extension, "weighted_mean", base=other, texts=["a"])
