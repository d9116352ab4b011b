"""What NumPy calls finite, found in the bits."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.interop.finite import CHECK_ELEMENTS, is_finite


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_is_finite_is_that_of_numpy(data):
    dtype = np.dtype(data.draw(st.sampled_from([np.float32, np.float16, jnp.bfloat16])))
    bits = data.draw(st.lists(st.integers(0, 2 ** (8 * dtype.itemsize) - 1), min_size=1, max_size=20))
    array = np.array(bits, f"u{dtype.itemsize}").view(dtype)
    assert is_finite(array) == bool(np.isfinite(array.astype(np.float64)).all())


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_one_value_among_many(value):
    array = np.zeros(3 * CHECK_ELEMENTS + 5, np.float32)
    assert is_finite(array)
    array[-1] = value
    assert not is_finite(array)
