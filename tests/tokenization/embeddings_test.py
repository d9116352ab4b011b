"""Rows for new tokens."""

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.embeddings import initialize_rows
from seallm_jax.tokenization.extend import extend_tokenizer


@pytest.fixture(scope="module")
def matrix(extension):
    rng = np.random.default_rng(0)
    return rng.standard_normal((extension.base_size + 7, 16)).astype(np.float32)  # 7 rows of padding in the base


@pytest.mark.parametrize("method", ["mean", "global_mean"])
def test_old_rows_are_bit_equal_and_padding_is_zero(extension, matrix, method):
    size = extension.tokenizer.size
    rows = initialize_rows(matrix, extension, method, padded_size=size + 40)
    assert rows.dtype == np.float32 and rows.shape == (size + 40, 16)
    np.testing.assert_array_equal(rows[: extension.base_size], matrix[: extension.base_size])
    assert not rows[size:].any()
    assert np.isfinite(rows).all()


def test_mean_is_the_mean_of_the_old_tokens(extension, matrix):
    rows = initialize_rows(matrix, extension)
    assert len(rows) == extension.tokenizer.size
    for index, ids in enumerate(extension.source_ids):
        np.testing.assert_allclose(rows[extension.base_size + index], matrix[ids].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_global_mean_depends_on_the_seed_only(extension, matrix):
    rows = initialize_rows(matrix, extension, "global_mean", seed=1)
    np.testing.assert_array_equal(rows, initialize_rows(matrix, extension, "global_mean", seed=1))
    assert (rows != initialize_rows(matrix, extension, "global_mean", seed=2)).any()
    new, old = rows[extension.base_size :], matrix[: extension.base_size]
    np.testing.assert_allclose(new.mean(axis=0), old.mean(axis=0), atol=0.01)
    assert 0.015 < new.std(axis=0).mean() / old.std(axis=0).mean() < 0.025


def test_the_input_is_not_changed(extension, matrix):
    before = matrix.copy()
    initialize_rows(matrix, extension)[:] = 1
    np.testing.assert_array_equal(matrix, before)


def test_without_new_tokens_only_the_padding_changes(base, new_texts, matrix):
    rows = initialize_rows(matrix, extend_tokenizer(base, new_texts, 0), padded_size=base.size + 3)
    np.testing.assert_array_equal(rows[: base.size], matrix[: base.size])
    assert not rows[base.size :].any()


def test_wrong_use(extension, matrix):
    with pytest.raises(SeallmError, match="does not hold the base tokenizer's 1024 rows"):
        initialize_rows(matrix[:100], extension)
    with pytest.raises(SeallmError, match="padded vocabulary size 1024 is below"):
        initialize_rows(matrix, extension, padded_size=1024)
    with pytest.raises(SeallmError, match="no initialisation 'zero'"):
        initialize_rows(matrix, extension, "zero")
