"""A function that changes nothing but how its surroundings are compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.models.fusion import apart_in_backward


def test_values_and_gradients_are_the_same():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    function = lambda x: jnp.sum(jnp.sin(x) ** 2)  # noqa: E731 - used twice below
    np.testing.assert_array_equal(apart_in_backward(x), x)
    apart = jax.grad(lambda x: function(apart_in_backward(x)))
    np.testing.assert_array_equal(apart(x), jax.grad(function)(x))


def test_the_barrier_is_in_the_backward_pass_only():
    def has_barrier(function) -> bool:
        return "optimization_barrier" in jax.jit(function).lower(jnp.ones(3)).as_text()

    assert not has_barrier(lambda x: apart_in_backward(2 * x))
    assert has_barrier(jax.grad(lambda x: jnp.sum(apart_in_backward(2 * x) ** 2)))
