"""Remat policies: the same gradients, and kept is what the name says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import KernelConfig, ModelConfig
from seallm_jax.models import remat
from seallm_jax.models.layout import initialize

T = 16
CONFIG = ModelConfig(
    vocabulary_size=32,
    padded_vocabulary_size=32,
    hidden_size=24,
    intermediate_size=40,
    num_layers=2,
    num_heads=3,
    num_key_value_heads=1,
    head_size=8,
    initializer_range=0.3,
)


@pytest.fixture(scope="module")
def model():
    return nnx.split(initialize(CONFIG, seed=0))


def loss_of(graph, policy):
    tokens = jnp.arange(T)[None] * 5 % 32
    positions, segments = jnp.arange(T)[None] % 8, 1 + jnp.arange(T)[None] // 8
    options = {"compute_dtype": jnp.float32, "kernels": KernelConfig(attention="chunked_xla")}

    def loss(parameters):
        hidden = nnx.merge(graph, parameters)(tokens, positions, segments, remat=policy, **options)
        return (hidden**2 * jnp.linspace(-1, 1, 24)).sum()

    return loss


def kept_shapes(graph, parameters, policy):
    """Shapes, of one layer, of the residuals that the scan over layers hands to the backward pass."""
    _, pullback = jax.eval_shape(lambda p: jax.vjp(loss_of(graph, policy), p), parameters)
    own = {leaf.shape for leaf in jax.tree.leaves(parameters)}
    leaves = [leaf for leaf in jax.tree.leaves(pullback) if leaf.shape[:1] == (2,) and leaf.shape not in own]
    return sorted(leaf.shape[1:] for leaf in leaves if leaf.ndim > 2)


HIDDEN, OUTPUT, TOTALS = (1, T, 24), (1, 1, 3, T, 8), (1, 1, 3, T, 1)
MATRIX_PRODUCTS = {(1, T, 3, 8), (1, T, 1, 8), (1, T, 40)}  # with parameters


def test_what_is_kept(model):
    assert kept_shapes(*model, "full") == [HIDDEN]
    assert kept_shapes(*model, "attention") == sorted([HIDDEN, OUTPUT, TOTALS])
    assert kept_shapes(*model, "qkv") == sorted([HIDDEN, (1, T, 3, 8), (1, T, 1, 8), (1, T, 1, 8)])
    for name in ("dots", "dots_with_no_batch_dims"):
        assert set(kept_shapes(*model, name)) >= MATRIX_PRODUCTS | {HIDDEN}
    assert set(kept_shapes(*model, "dots_and_attention")) >= MATRIX_PRODUCTS | {HIDDEN, OUTPUT, TOTALS}
    assert len(kept_shapes(*model, "none")) > len(kept_shapes(*model, "dots"))


def test_attention_kept_is_not_computed_again(model):
    """Its two products, scores and sums of values, are not there a second time."""

    def products(policy):
        graph, parameters = model
        return str(jax.make_jaxpr(jax.grad(loss_of(graph, policy)))(parameters)).count("dot_general[")

    assert products("full") - products("attention") == 2
    assert products("dots_with_no_batch_dims") - products("dots_and_attention") == 2


def test_gradients_do_not_depend_on_it(model):
    graph, parameters = model
    names = ("none", "attention", "dots_and_attention")
    gradients = jax.jit(lambda p: [jax.grad(loss_of(graph, name))(p) for name in names])
    expected, *others = gradients.lower(parameters).compile({"xla_backend_optimization_level": 0})(parameters)
    for found in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_offloading_needs_a_backend_that_does(model):
    with pytest.raises(SeallmError, match=r"remat=offload needs .* not cpu; use remat=full or remat=attention"):
        loss_of(model[0], "offload")(model[1])
    with pytest.raises(SeallmError, match=r"remat is 'ful'; use one of none, full, "):
        remat.rematerialize(lambda carry, xs: carry, "ful")


def test_offloaded_is_what_lies_on_the_host(model, monkeypatch):
    monkeypatch.setattr(remat, "_offloads", lambda device: True)
    graph, parameters = model
    text = str(jax.make_jaxpr(jax.grad(loss_of(graph, "offload")))(parameters))
    moved = [line for line in text.splitlines() if "pinned_host" in line or "MemorySpace" in line]
    assert moved
