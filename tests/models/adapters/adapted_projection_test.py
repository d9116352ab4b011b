from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.models.adapters.adapted_projection import AdaptedProjection
from seallm_jax.models.projection import Projection

KINDS = {
    "query": ("btm,mhd->bthd", (64, 2, 5), (2, 3, 64)),
    "output": ("bthd,hdm->btm", (2, 32, 7), (2, 3, 2, 32)),
    "up": ("btm,mf->btf", (64, 9), (2, 3, 64)),
}


def normal(shape) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def make(kind, adapter, *, bias=True) -> tuple[Projection, AdaptedProjection]:
    equation, shape, _ = KINDS[kind]
    base = Projection(ModelConfig(), equation, shape, bias=bias, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    adapted = AdaptedProjection(base, adapter, jax.random.key(1), stacked=False)
    adapted.lora_b[...] = normal(adapted.lora_b.shape)
    return base, adapted


@pytest.mark.parametrize(("kind", "quantize"), [("query", "none"), ("output", "nf4"), ("up", "int8")])
def test_the_adapter_is_added_to_the_kernel(kind, quantize):
    equation, shape, x_shape = KINDS[kind]
    _, adapted = make(kind, AdapterConfig(rank=3, alpha=2.0, quantize=quantize))
    x = normal(x_shape)
    merged = adapted.merged_kernel()
    assert merged.shape == shape
    a, b = (np.asarray(p[...], np.float64) for p in (adapted.lora_a, adapted.lora_b))
    change = np.tensordot(a, b, 1) * (2.0 / 3)
    np.testing.assert_allclose(merged - adapted.kernel[...], change, rtol=1e-5, atol=1e-5)
    expected = np.einsum(equation, np.asarray(x, np.float64), np.asarray(merged, np.float64))
    np.testing.assert_allclose(adapted(x), expected, rtol=1e-4, atol=1e-4)


def test_a_new_adapter_changes_nothing_and_is_drawn_as_peft_does():
    base, adapted = make("output", AdapterConfig(rank=8))
    adapted.lora_b[...] = jnp.zeros_like(adapted.lora_b[...])
    x = normal((2, 3, 2, 32))
    np.testing.assert_array_equal(adapted(x), base(x))
    bound = 1 / np.sqrt(2 * 32)
    values = np.asarray(adapted.lora_a[...])
    assert bound * 0.95 < values.max() <= bound and -bound <= values.min() < -bound * 0.95


def test_the_sum_of_kernel_and_product_is_never_formed():
    _, adapted = make("up", AdapterConfig(rank=3), bias=False)
    shapes = jax.make_jaxpr(adapted)(jnp.ones((2, 3, 64))).pretty_print()
    assert "f32[64,9]" in shapes  # the kernel itself
    assert not [line for line in shapes.splitlines() if "f32[64,9] = add" in line or "f32[64,9] = dot" in line]


def test_dropout_keeps_the_mean_and_leaves_the_base_alone():
    base, adapted = make("up", AdapterConfig(rank=3, alpha=3.0, dropout=0.25))
    x = jnp.ones((1, 1, 64))
    whole = adapted(x) - base(x)

    def drawn(key):
        adapted.dropout_key = nnx.Variable(key)
        return adapted(x) - base(x)

    samples = np.stack([drawn(jax.random.key(seed)) for seed in range(200)])
    assert samples.std(axis=0).min() > 0.01
    error = np.abs(samples.mean(axis=0) - whole)
    assert np.all(error < 5 * samples.std(axis=0) / np.sqrt(200))
    np.testing.assert_array_equal(drawn(jax.random.key(7)), drawn(jax.random.key(7)))


def test_codes_are_turned_into_numbers_again_in_the_backward_pass():
    """Nothing of the kernel's size is kept for it: what is kept has the size of codes, scales and activations."""
    _, adapted = make("up", AdapterConfig(rank=3, quantize="int8"), bias=False)
    graph, state = nnx.split(adapted)

    def loss(lora, x):
        return nnx.merge(graph, nnx.merge_state(state, lora))(x).sum()

    lora = nnx.State({name: state[name] for name in ("lora_a", "lora_b")})
    _, backward = jax.vjp(loss, lora, jnp.ones((2, 3, 64)))
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape == (64, 9)]
    assert [leaf.dtype for leaf in kept] == [jnp.int8]
