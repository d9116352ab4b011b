from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.models.quantization.quantized_kernel import FORMATS, QuantizedKernel

LAYERS = 2


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("shape", "inputs"), [((64, 3, 4), 1), ((4, 32, 6), 2)], ids=["out split", "in split"])
def test_a_stacked_kernel_is_read_whole_and_layer_by_layer(format, shape, inputs):
    kernel = jax.random.normal(jax.random.key(0), (LAYERS, *shape))
    stacked = QuantizedKernel(format, kernel, inputs=inputs, stacked=True)
    whole = np.asarray(stacked[...])
    assert whole.shape == kernel.shape and whole.dtype == np.float32
    assert np.abs(whole - kernel).max() < (0.16 if format == "nf4" else 0.005) * np.abs(kernel).max()

    graph, parameters = nnx.split(stacked)
    _, rows = jax.lax.scan(lambda _, part: (None, nnx.merge(graph, part)[...]), None, parameters)
    np.testing.assert_array_equal(rows, whole)
    alone = QuantizedKernel(format, kernel[1], inputs=inputs, stacked=False)
    np.testing.assert_array_equal(alone[...], whole[1])


def test_sizes():
    kernel = jnp.zeros((LAYERS, 128, 6))
    sizes = {}
    for format in FORMATS:
        state = nnx.state(QuantizedKernel(format, kernel, inputs=1, stacked=True))
        sizes[format] = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert sizes == {"int8": kernel.size + LAYERS * 6 * 4, "nf4": kernel.size // 2 + kernel.size // 64 * 4}
