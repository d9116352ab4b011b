"""Against the compiler's own count of a layer's training step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import KernelConfig, ModelConfig
from seallm_jax.models.flops import training_flops
from seallm_jax.models.layout import abstract_decoder

# one layer, because the compiler counts the body of a loop once; wide, so that matrix products are nearly all there is
CONFIG = ModelConfig(
    vocabulary_size=2048,
    padded_vocabulary_size=2048,
    hidden_size=256,
    intermediate_size=768,
    num_layers=1,
    num_heads=4,
    num_key_value_heads=2,
    head_size=128,
)


@pytest.mark.parametrize("gated", [True, False])
def test_the_compiler_counts_the_same(gated):
    rows, T = 2, 1024
    config = dataclasses.replace(CONFIG, gated=gated)
    graph, parameters = abstract_decoder(config)
    ids = jax.ShapeDtypeStruct((rows, T), jnp.int32)
    kernels = KernelConfig(attention="reference", cross_entropy="reference")

    def loss(parameters, ids):
        batch = Batch(ids, ids, ids, ids, ids, ids)
        model = nnx.merge(graph, parameters)
        return model.log_probability(batch, compute_dtype=jnp.float32, kernels=kernels).log_probability.sum()

    counted = jax.jit(jax.grad(loss)).lower(parameters, ids).cost_analysis()["flops"]
    assert training_flops(config, rows, T, causal=False) == pytest.approx(counted, rel=0.06)


def test_causal_attention_is_half_and_windows_see_less():
    def attention(model, causal):
        return training_flops(model, 1, 512, causal=causal) - training_flops(model, 512, 1, causal=False)

    whole = attention(CONFIG, causal=False)
    assert attention(CONFIG, causal=True) == pytest.approx(whole / 2, rel=0.01)
    windowed = dataclasses.replace(CONFIG, sliding_window=64, local_layers=(True,))
    pairs = sum(min(query + 1, 64) for query in range(512))
    assert attention(windowed, causal=True) == pytest.approx(whole * pairs / 512**2, rel=0.02)


def test_frozen_matrices_need_no_gradient():
    own = training_flops(CONFIG, 512, 1, causal=True)
    assert training_flops(CONFIG, 512, 1, causal=True, weight_gradients=False) == pytest.approx(own * 4 / 6, rel=0.01)
