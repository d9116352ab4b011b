from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from seallm_jax.planning.product_flops import product_flops

A, B = jax.ShapeDtypeStruct((6, 10), jnp.float32), jax.ShapeDtypeStruct((10, 8), jnp.float32)
ONE = 2 * 6 * 10 * 8


def test_without_loops_it_is_what_xla_counts():
    def run(a, b):
        out, pullback = jax.vjp(jnp.dot, a, b)
        return pullback(out)

    compiled = jax.jit(run).lower(A, B).compile()
    assert product_flops(run, A, B) == compiled.cost_analysis()["flops"] == 3 * ONE


def test_loops_conditions_and_batches():
    def scanned(a, b):
        return jax.lax.scan(lambda carry, _: (carry + (a @ b).sum(), None), 0.0, length=5)[0]

    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b @ b.T @ b, lambda: a @ b)

    assert product_flops(scanned, A, B) == 5 * ONE
    assert product_flops(either, A, B) == 3 * ONE
    batched = jax.ShapeDtypeStruct((3, 6, 10), jnp.float32)
    assert product_flops(jax.jit(jax.vmap(jnp.dot, (0, None))), batched, B) == 3 * ONE


@pytest.mark.parametrize("cost", [None, pl.CostEstimate(flops=7, transcendentals=0, bytes_accessed=0)])
def test_kernels_count_what_they_say(cost):
    def run(a):
        shape = jax.ShapeDtypeStruct(a.shape, a.dtype)
        return pl.pallas_call(lambda x, y: None, out_shape=shape, cost_estimate=cost, name="mine")(a)

    if cost is None:
        with pytest.raises(ValueError, match="mine gives no estimate"):
            product_flops(run, A)
    else:
        assert product_flops(run, A) == 7
