from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.models.quantization.int8 import dequantize_int8, quantize_int8


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_round_trip_is_within_half_a_step_of_the_output(seed):
    kernel = np.random.default_rng(seed).standard_normal((24, 5)).astype(np.float32) * [1.0, 1e-5, 1e3, 0.0, 2.0]
    kernel = kernel.astype(np.float32)
    codes, scales = quantize_int8(jnp.asarray(kernel))
    assert codes.dtype == jnp.int8 and codes.shape == kernel.shape and scales.shape == (1, 5)
    steps = np.abs(kernel).max(axis=0) / 127
    np.testing.assert_allclose(scales[0], steps, rtol=1e-6)
    assert np.all(np.abs(dequantize_int8(codes, scales) - kernel) <= steps * 0.5001)
    assert np.abs(np.asarray(codes)).max() <= 127
