"""A Hugging Face folder, or a model of the Hub, into parameters on a mesh."""

from __future__ import annotations

import concurrent.futures
import math
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.interop.checkpoint_tensor import CheckpointTensor, checkpoint_tensors
from seallm_jax.interop.expected_tensors import find_tensors
from seallm_jax.interop.fresh_memory import fresh_memory
from seallm_jax.interop.hub import model_folder
from seallm_jax.interop.model_files import ModelFiles
from seallm_jax.interop.tensor_block import Bounds, TensorBlock, tensor_blocks
from seallm_jax.interop.tensor_files import STORED_TYPES, TensorFiles, TensorInfo
from seallm_jax.interop.tiled_copy import copy_tiled
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.families.weight import Weight
from seallm_jax.models.layout import abstract_decoder, parameter_shardings, path_name


class ImportedModel(NamedTuple):
    """A checkpoint in memory.

    Attributes:
      config: the model's shape.
      parameters: as `nnx.state(Decoder)`, on the mesh.
      tokenizer_path: the local folder, where `Tokenizer.load` finds the tokenizer.
    """

    config: ModelConfig
    parameters: nnx.State
    tokenizer_path: pathlib.Path

    def decoder(self) -> Decoder:
        """The model; its parameters are these, not a copy."""
        return nnx.merge(abstract_decoder(self.config)[0], self.parameters)


def import_model(
    source: str | pathlib.Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    tensor: int | None = None,
    param_dtype: Any = jnp.float32,
    progress: Progress | None = None,
) -> ImportedModel:
    """Reads a checkpoint into the stacked layout, tensor by tensor, each device's share to where it belongs.

    All names, shapes and dtypes are checked before memory is spent. Each process reads what its own devices hold.
    Beside the parameters, memory holds one block a thread, and on an accelerator the shares that are on their way to
    it.

    Args:
      source: folder with config.json, safetensors files and the tokenizer, or a model's name on the Hub.
      mesh: where the parameters go, laid out by `rules`; one device without it.
      tensor: the mesh axis that splits the vocabulary, for its padding; that of `mesh` (or 1) when None.
      param_dtype: dtype of the parameters. Tensors go there directly, bfloat16 to bfloat16 as it is.

    Raises:
      SeallmError: no config.json, an architecture or a rope type that is not supported, a pickle instead of
        safetensors, a damaged file, tensors that are missing, unexpected or of the wrong shape or dtype, or a download
        that failed.
    """
    folder = model_folder(source)
    config = ModelFiles(folder).shape(tensor=tensor or (1 if mesh is None else mesh.shape["tensor"]))
    found = find_tensors(TensorFiles(folder), config)
    _, abstract = abstract_decoder(config, param_dtype=param_dtype)
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    shardings: dict[str, jax.sharding.Sharding | None] = dict.fromkeys(leaves)
    if mesh is not None:
        tree = parameter_shardings(abstract, mesh, rules)
        shardings = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    groups: dict[tuple[Weight, ...], list[CheckpointTensor]] = {}
    for tensor_ in checkpoint_tensors(config):
        groups.setdefault(tensor_.rows, []).append(tensor_)
    arrays: dict[str, jax.Array] = {}
    with (
        (progress or Progress.silent()).task(f"reading {folder.name}", total=len(leaves)) as advance,
        _Reader(found, config) as reader,
    ):
        for rows, tensors in groups.items():
            shares = {row.path: _Shares(leaves[row.path], shardings[row.path]) for row in rows}
            reader.fill(tensors, shares)
            for path, share in shares.items():
                arrays[path] = share.to_devices()
                advance(1, path)
    missing = leaves.keys() - arrays.keys()
    if missing:
        raise SeallmError(f"family {config.family} has no tensor for parameter {min(missing)} of this model")
    parameters = jax.tree_util.tree_map_with_path(lambda path, _: arrays[path_name(path)], abstract)
    return ImportedModel(config, parameters, folder)


class _Shares:
    """The parts of one parameter that the devices of this process hold, as host arrays to be filled."""

    def __init__(self, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding | None):
        self._leaf, self._sharding = leaf, sharding
        self._devices: dict[Bounds, list[jax.Device | None]] = {}
        if sharding is None:
            self._devices[tuple((0, size) for size in leaf.shape)] = [None]
        else:
            for device, index in sharding.addressable_devices_indices_map(leaf.shape).items():
                parts = zip(index or (), leaf.shape, strict=True)
                bounds = tuple(part.indices(size)[:2] for part, size in parts)
                self._devices.setdefault(bounds, []).append(device)
        # zeros: rows that pad the vocabulary stay so
        self.arrays = {bounds: _zeros([stop - start for start, stop in bounds], leaf.dtype) for bounds in self._devices}

    def to_devices(self) -> jax.Array:
        """The parameter. The host arrays are given away: on a CPU they are the parameter."""
        parts = []
        while self._devices:
            bounds, devices = self._devices.popitem()
            array = self.arrays.pop(bounds)
            # one array may become the memory of one device only
            parts += [
                jax.device_put(array, device, may_alias=None if copy == 0 else False)
                for copy, device in enumerate(devices)
            ]
            del array
        jax.block_until_ready(parts)
        if self._sharding is None:
            return parts[0]
        return jax.make_array_from_single_device_arrays(self._leaf.shape, self._sharding, parts)


class _Reader:
    """Reads tensors on several threads."""

    def __init__(self, found: Mapping[str, TensorInfo], config: ModelConfig):
        self._found, self._config = found, config
        self._pool = concurrent.futures.ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, 16)))
        self._scratch = threading.local()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def fill(self, tensors: Sequence[CheckpointTensor], shares: Mapping[str, _Shares]) -> None:
        """Reads one tensor, or that of each layer, into the shares of the parameters that it holds."""
        work = []
        for tensor in tensors:
            itemsize = STORED_TYPES[self._found[tensor.name].dtype].itemsize
            work += [
                self._pool.submit(self._copy, block, shares) for block in tensor_blocks(tensor, self._config, itemsize)
            ]
        for done in work:
            done.result()

    def _copy(self, block: TensorBlock, shares: Mapping[str, _Shares]) -> None:
        """A block, or of it the range of bytes that holds what this process needs."""
        info = self._found[block.tensor.name]
        stored = STORED_TYPES[info.dtype]
        memory = self._memory(math.prod(block.shape) * stored.itemsize)
        array = memory.view(stored).reshape(block.shape)
        copies = []
        for row in block.tensor.rows:
            for bounds, share in shares[row.path].arrays.items():
                shared = block.shared(array, row, bounds, self._config)
                if shared is not None:
                    index, source = shared
                    copies.append((share[index], source))
        if not copies:
            return
        spans = [np.lib.array_utils.byte_bounds(source) for _, source in copies]
        low = min(low for low, _ in spans) - memory.ctypes.data
        high = max(high for _, high in spans) - memory.ctypes.data
        info.read(memory[low:high], block.first_element * stored.itemsize + low)
        for target, source in copies:
            copy_tiled(target, source)

    def _memory(self, size: int) -> np.ndarray:
        """uint8 [size], the same memory each time in a thread."""
        memory = getattr(self._scratch, "memory", None)
        if memory is None or memory.size < size:
            memory = self._scratch.memory = np.empty(size, np.uint8)
        return memory[:size]


def _zeros(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return fresh_memory(size).view(dtype).reshape(shape)
