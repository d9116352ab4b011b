"""Rounding at random: to a neighbour always, to the value itself on average, and small updates add up."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from seallm_jax.training.rounding import round_like

round_once = jax.jit(round_like)
NARROW = jnp.zeros(4096, jnp.bfloat16)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.floats(-(2.0**126), 2.0**126, width=32), st.integers(0, 2**31 - 1))
def test_it_is_one_of_the_two_neighbours_and_right_on_average(value, seed):
    found = np.asarray(round_once(jnp.full(4096, value, jnp.float32), NARROW, jax.random.key(seed))).astype(np.float64)
    nearest = float(np.float32(value).astype(ml_dtypes.bfloat16))
    if nearest == value:
        assert set(found) == {value}
        return
    towards = ml_dtypes.bfloat16(np.inf if value > nearest else -np.inf)
    other = float(np.nextafter(ml_dtypes.bfloat16(nearest), towards))
    assert set(found) <= {nearest, other}
    share = abs(value - nearest) / abs(other - nearest)
    assert abs(np.mean(found == other) - share) < 5 * np.sqrt(share * (1 - share) / 4096) + 1e-3


def test_wide_values_stay():
    value = jnp.array([1.0 + 2**-20, np.nan, -np.inf], jnp.float32)
    np.testing.assert_array_equal(round_like(value, value, jax.random.key(0)), value)
    narrow = np.asarray(round_like(value, value.astype(jnp.bfloat16), jax.random.key(0)), np.float32)
    assert np.isnan(narrow[1]) and narrow[2] == -np.inf


def test_updates_below_half_a_unit_add_up_which_rounding_to_the_nearest_loses():
    """A hundred steps of a thousandth from one, where a unit is 2 ** -7 above and 2 ** -8 below."""
    random = nearest = jnp.ones(4096, jnp.bfloat16)
    for number in range(100):
        random = round_once(random.astype(jnp.float32) - 1e-3, NARROW, jax.random.key(number))
        nearest = (nearest.astype(jnp.float32) - 1e-3).astype(jnp.bfloat16)
    assert (nearest == 1).all()
    assert abs(float(random.astype(jnp.float32).mean()) - 0.9) < 1e-3
