from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.models.adapters.adapted_vocabulary import AdaptedVocabulary
from seallm_jax.models.decoder import VocabularyMatrix

CONFIG = ModelConfig(vocabulary_size=11, padded_vocabulary_size=16, hidden_size=6)
TOKENS = jnp.asarray([[0, 10, 8], [9, 3, 10]])


def make(adapter, *, is_head) -> tuple[VocabularyMatrix, AdaptedVocabulary]:
    base = VocabularyMatrix(CONFIG, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    key = jax.random.key(1) if adapter.names else None
    return base, AdaptedVocabulary(base, CONFIG, adapter, key, is_head=is_head)


@pytest.mark.parametrize("is_head", [False, True], ids=["embedding", "head"])
def test_rows_are_those_of_the_matrix(is_head):
    base, adapted = make(AdapterConfig(rank=2, targets=("head" if is_head else "embedding",)), is_head=is_head)
    np.testing.assert_array_equal(adapted.matrix(), base.matrix())
    assert adapted.lora_a.shape == ((6, 2) if is_head else (16, 2))
    for number, parameter in enumerate((adapted.lora_a, adapted.lora_b)):
        parameter[...] = jnp.asarray(np.random.default_rng(number).standard_normal(parameter.shape), jnp.float32)
    change = np.asarray(adapted.lora_a[...]) @ np.asarray(adapted.lora_b[...]) * 8
    change = change.T if is_head else change
    np.testing.assert_allclose(adapted.matrix() - base.matrix(), change, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(adapted.merged_kernel(), adapted.matrix())
    if not is_head:
        np.testing.assert_allclose(adapted.rows(TOKENS), adapted.matrix()[TOKENS], rtol=1e-5, atol=1e-5)


def test_new_rows_take_the_place_of_the_frozen_ones():
    base, adapted = make(AdapterConfig(targets=(), train_new_rows=True, first_new_row=9), is_head=False)
    assert adapted.new_rows.shape == (2, 6)
    np.testing.assert_array_equal(adapted.rows(TOKENS), base.rows(TOKENS))
    adapted.new_rows[...] = jnp.asarray([[1.0] * 6, [2.0] * 6])
    rows = np.asarray(adapted.rows(TOKENS))
    np.testing.assert_array_equal(rows[:, :, 0][np.asarray(TOKENS) >= 9], [2.0, 1.0, 2.0])
    np.testing.assert_array_equal(rows, adapted.matrix()[TOKENS])
    np.testing.assert_array_equal(adapted.matrix()[:9], base.matrix()[:9])
    np.testing.assert_array_equal(adapted.matrix()[11:], 0)

    gradient = jax.grad(lambda rows: nnx.merge(*with_rows(adapted, rows)).rows(TOKENS).sum())(adapted.new_rows[...])
    np.testing.assert_array_equal(gradient, [[1.0] * 6, [2.0] * 6])


def with_rows(module, rows):
    graph, state = nnx.split(module)
    state["new_rows"] = state["new_rows"].replace(rows)
    return graph, state
