from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.projection import Projection, merge_positions

CASES = [  # equation, kernel, input, bias
    ("btm,mhd->bthd", (6, 2, 4), (3, 5, 6), (2, 4)),
    ("bthd,hdm->btm", (2, 4, 6), (3, 5, 2, 4), (6,)),
    ("btm,mf->btf", (6, 7), (3, 5, 6), (7,)),
]


@pytest.mark.parametrize(("equation", "kernel", "x", "bias"), CASES)
def test_a_bias_has_the_dimensions_that_the_kernel_brings_in(equation, kernel, x, bias):
    rng = np.random.default_rng(0)
    projection = Projection(ModelConfig(), equation, kernel, bias=True, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    assert projection.kernel.shape == kernel and projection.bias.shape == bias
    projection.bias[...] = jnp.asarray(rng.normal(size=bias), jnp.float32)
    values = rng.normal(size=x).astype(np.float32)
    expected = np.einsum(equation, values, projection.kernel[...]) + projection.bias[...]
    np.testing.assert_allclose(projection(values), expected, rtol=1e-5, atol=1e-5)
    half = projection(jnp.asarray(values, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=0.05, atol=0.05)


def test_without_a_bias_there_is_no_parameter_for_it():
    projection = Projection(ModelConfig(), "btm,mf->btf", (6, 7), rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    assert list(nnx.state(projection)) == ["kernel"]


@pytest.mark.parametrize(("equation", "kernel", "x", "bias"), CASES)
def test_merged_positions_change_nothing(equation, kernel, x, bias):
    """The oracle: the einsum, and its gradients."""
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=x), jnp.float32)
    found = []
    for merged in (False, True):
        projection = Projection(ModelConfig(), equation, kernel, bias=True, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
        if merged:
            merge_positions(projection)

        def loss(projection, values):
            return jnp.sum(jnp.sin(projection(values)))

        gradients = nnx.grad(loss, argnums=(0, 1))(projection, values)
        found.append([projection(values), gradients[1], *jax.tree.leaves(gradients[0])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
