"""What we write, safetensors reads."""

import concurrent.futures
import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from seallm_jax.interop.tensor_writer import TensorSpec, TensorWriter


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_safetensors_reads_what_was_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("files")
    dtype = np.dtype(data.draw(st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16])))
    shapes = data.draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6))
    limit = data.draw(st.integers(1, 600))
    rng = np.random.default_rng(0)
    arrays = {f"tensor.{n}": rng.standard_normal(shape).astype(dtype) for n, shape in enumerate(shapes)}
    specs = [TensorSpec(name, array.shape) for name, array in arrays.items()]
    blocks = [(name, row, array[0].size * n) for name, array in arrays.items() for n, row in enumerate(array)]
    writer = TensorWriter(folder, specs, dtype=dtype, shard_bytes=limit)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda block: writer.write(*block), data.draw(st.permutations(blocks))))
    writer.finish()
    files, found = writer.files, {}
    for file in files:
        tensors = load_file(folder / file)
        assert len(tensors) == 1 or sum(array.nbytes for array in tensors.values()) <= limit
        found |= tensors
        with safe_open(folder / file, framework="numpy") as stream:
            assert stream.metadata() == {"format": "pt"}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == dtype and found[name].tobytes() == array.tobytes()
    if len(files) > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
        assert {name: file for file in files for name in load_file(folder / file)} == index["weight_map"]
    else:
        assert [child.name for child in folder.iterdir()] == ["model.safetensors"]


def test_tensors_begin_where_they_are_aligned(tmp_path):
    spec = TensorSpec("odd name of a tensor", (3,))
    TensorWriter(tmp_path, [spec], dtype=np.dtype(np.float32), shard_bytes=100)
    (length,) = struct.unpack("<Q", (tmp_path / "model.safetensors").read_bytes()[:8])
    assert length % 8 == 0


@pytest.mark.parametrize(("size", "dtype", "first"), [(4, np.float32, 0), (3, np.float64, 0), (2, np.float32, 2)])
def test_blocks_must_be_those_of_the_tensors(tmp_path, size, dtype, first):
    tensors = [TensorSpec("a", (3,)), TensorSpec("b", (3,))]
    writer = TensorWriter(tmp_path, tensors, dtype=np.dtype(np.float32), shard_bytes=100)
    with pytest.raises(ValueError, match="a has no place for"):
        writer.write("a", np.ones(size, dtype), first)


def test_all_elements_must_be_written(tmp_path):
    writer = TensorWriter(tmp_path, [TensorSpec("a", (3,))], dtype=np.dtype(np.float32), shard_bytes=100)
    writer.write("a", np.ones(2, np.float32), 1)
    with pytest.raises(ValueError, match="4 bytes were not written"):
        writer.finish()
