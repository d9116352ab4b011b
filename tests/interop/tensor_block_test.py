"""Blocks of a tensor, put together from parts of its parameters, are the tensor."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.interop import tensor_block
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
from tests.interop.small_models import FAMILIES, huggingface_config, model_shape


@pytest.mark.parametrize("model_type", FAMILIES)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_parts_and_blocks_cover_each_tensor_once(model_type, data):
    config = model_shape(huggingface_config(model_type))
    tensor = data.draw(st.sampled_from(checkpoint_tensors(config)), label="tensor")
    numbers = np.arange(1, np.prod(tensor.shape) + 1, dtype=np.int64).reshape(tensor.shape)
    parameters = {row.path: row.from_checkpoint(numbers, config) for row in tensor.rows}
    parts = {}
    for path, parameter in parameters.items():
        shape = parameter.shape
        if tensor.layer is not None:  # a part holds some of the layers
            parameter = np.stack([parameter if layer == tensor.layer else -parameter for layer in range(3)])
        shape = parameter.shape
        cuts = [sorted({0, size, data.draw(st.integers(0, size), label=f"cut of {path}")}) for size in shape]
        for bounds in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
            parts[path, bounds] = parameter[tuple(slice(*span) for span in bounds)]
    written = np.zeros(numbers.size, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_block, "BLOCK_BYTES", data.draw(st.integers(1, numbers.nbytes + 1), label="block"))
        blocks = tensor_block.tensor_blocks(tensor, config, 8)
    for block in blocks:
        memory = np.zeros(block.shape, np.int64)
        for row in tensor.rows:
            for (path, bounds), part in parts.items():
                shared = block.shared(memory, row, bounds, config) if path == row.path else None
                if shared is not None:
                    index, view = shared
                    assert not view.any() and view.size  # nothing twice
                    view[...] = part[index]
        written[block.first_element : block.first_element + memory.size] += memory.reshape(-1)
    np.testing.assert_array_equal(written, numbers.reshape(-1))


def test_blocks_are_about_as_large_as_asked_for(monkeypatch):
    config = model_shape(huggingface_config("llama"))
    monkeypatch.setattr(tensor_block, "BLOCK_BYTES", 1000)
    embedding = checkpoint_tensors(config)[0]
    sizes = [np.prod(block.shape) * 2 for block in tensor_block.tensor_blocks(embedding, config, 2)]
    assert max(sizes) <= 1000 and len(sizes) < 2 * sum(sizes) / 1000
