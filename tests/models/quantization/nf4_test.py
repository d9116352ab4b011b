from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from seallm_jax.core.errors import SeallmError
from seallm_jax.models.quantization.nf4 import BLOCK, CODEBOOK, dequantize_nf4, quantize_nf4

WIDEST = max(np.diff(CODEBOOK)) / 2  # of a unit block


def test_codes_are_quantiles_of_the_normal_distribution():
    """The construction of QLoRA's appendix E: eight quantiles above zero, seven below, and zero."""
    offset = 0.9677083
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([above, [0.0], below]))
    np.testing.assert_allclose(CODEBOOK, values / values.max(), atol=1e-6)


def test_codes_are_those_of_qwix():
    numerics = pytest.importorskip("qwix._src.core.numerics")
    np.testing.assert_array_equal(np.float32(CODEBOOK), numerics.get_nf4_buckets())


def test_numbers_are_those_of_qwix():
    qwix = pytest.importorskip("qwix")
    kernel = jax.random.normal(jax.random.key(0), (2 * BLOCK, 6))
    expected = qwix.dequantize(qwix.quantize(kernel, "nf4", channelwise_axes=[1], tiled_axes={0: BLOCK}))
    np.testing.assert_allclose(dequantize_nf4(*quantize_nf4(kernel)), expected, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e4]))
@settings(max_examples=20, deadline=None)
def test_round_trip_is_the_nearest_code_of_the_block(seed, scale):
    kernel = scale * np.random.default_rng(seed).standard_normal((2 * BLOCK, 3)).astype(np.float32)
    codes, scales = map(np.asarray, quantize_nf4(jnp.asarray(kernel)))
    assert codes.shape == (BLOCK, 3) and codes.dtype == np.uint8 and scales.shape == (2, 3)
    found = np.asarray(dequantize_nf4(jnp.asarray(codes), jnp.asarray(scales)))
    blocks = kernel.reshape(2, BLOCK, 3)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    np.testing.assert_array_equal(scales, largest[:, 0])
    grid = np.float32(CODEBOOK)[:, None, None, None] * largest
    best = np.abs(grid - blocks).min(axis=0)
    error = np.abs(found.reshape(blocks.shape) - blocks)
    np.testing.assert_allclose(error, best, atol=1e-6 * largest.max())
    assert np.all(error <= WIDEST * largest * (1 + 1e-5))


def test_bytes_hold_two_inputs_the_first_in_the_high_half():
    kernel = jnp.zeros((BLOCK, 1)).at[0, 0].set(-1.0).at[1, 0].set(1.0)
    codes, _ = quantize_nf4(kernel)
    assert codes[0, 0] == (0 << 4) | 15
    assert codes[1, 0] == (7 << 4) | 7  # zero


def test_every_code_and_zeros_survive():
    values = jnp.tile(jnp.asarray(CODEBOOK, jnp.float32), BLOCK // 16)[:, None] * jnp.asarray([3.0, 0.0])
    np.testing.assert_array_equal(dequantize_nf4(*quantize_nf4(values)), values)


def test_inputs_have_to_fill_blocks():
    with pytest.raises(SeallmError, match="96 inputs"):
        jax.eval_shape(quantize_nf4, jax.ShapeDtypeStruct((96, 4), jnp.float32))
