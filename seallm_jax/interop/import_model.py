"""A Hugging Face folder, or a model of the Hub, into parameters on a mesh."""

from __future__ import annotations

import concurrent.futures
import dataclasses
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
from seallm_jax.interop.tensor_files import STORED_TYPES, TensorFiles, TensorInfo
from seallm_jax.interop.tiled_copy import copy_tiled
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.families.weight import Weight
from seallm_jax.models.layout import abstract_decoder, parameter_shardings, path_name

BLOCK_BYTES = 16 << 20  # rows of a large matrix are read in blocks of this size
SCRATCH_BYTES = 512 << 20  # what all threads together may hold besides the parameters

Bounds = tuple[tuple[int, int], ...]  # start and stop of each dimension


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
    Beside the parameters, memory holds one tensor a thread, `SCRATCH_BYTES` at most unless one tensor is larger, and on
    an accelerator the shares that are on their way to it.

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
        largest = max((info.nbytes for info in found.values()), default=1)
        threads = max(1, min(os.cpu_count() or 1, 16, SCRATCH_BYTES // max(min(largest, SCRATCH_BYTES), 1)))
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._scratch = threading.local()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def fill(self, tensors: Sequence[CheckpointTensor], shares: Mapping[str, _Shares]) -> None:
        """Reads one tensor, or that of each layer, into the shares of the parameters that it holds."""
        work = []
        for tensor in tensors:
            if tensor.copied_by_rows:
                info = self._found[tensor.name]
                rows = max(1, BLOCK_BYTES * tensor.shape[0] // max(info.nbytes, 1))
                starts = range(0, tensor.shape[0], rows)
                (share,) = shares.values()
                work += [self._pool.submit(self._copy_rows, tensor, share, start, rows) for start in starts]
            else:
                work.append(self._pool.submit(self._copy, tensor, shares))
        for done in work:
            done.result()

    def _copy_rows(self, tensor: CheckpointTensor, share: _Shares, start: int, rows: int) -> None:
        """Rows of a matrix that lies in the file as it does here."""
        info, stop = self._found[tensor.name], min(start + rows, tensor.shape[0])
        wanted = [bounds for bounds in share.arrays if bounds[0][0] < stop and start < bounds[0][1]]
        if not wanted:
            return
        row_bytes = info.nbytes // tensor.shape[0]
        block = self._memory((stop - start) * row_bytes)
        dataclasses.replace(info, offset=info.offset + start * row_bytes, shape=(stop - start, *info.shape[1:])).read(
            block
        )
        view = block.view(STORED_TYPES[info.dtype]).reshape(stop - start, *info.shape[1:])
        for bounds in wanted:
            (low, high), *others = bounds
            first, last = max(start, low), min(stop, high)
            part = view[(slice(first - start, last - start), *(slice(*span) for span in others))]
            copy_tiled(share.arrays[bounds][first - low : last - low], part)

    def _copy(self, tensor: CheckpointTensor, shares: Mapping[str, _Shares]) -> None:
        """A whole tensor, or of it the range of bytes that holds what this process needs."""
        info = self._found[tensor.name]
        memory = self._memory(info.nbytes)
        stored = memory.view(STORED_TYPES[info.dtype]).reshape(tensor.shape)
        copies: list[tuple[np.ndarray, np.ndarray]] = []
        for row in tensor.rows:
            view = row.from_checkpoint(stored, self._config)
            for bounds, target in shares[row.path].arrays.items():
                if tensor.layer is not None:
                    (low, high), bounds = bounds[0], bounds[1:]
                    if not low <= tensor.layer < high:
                        continue
                    target = target[tensor.layer - low]
                part = view[tuple(slice(*span) for span in bounds)]
                if part.size:
                    # smaller than the target where that pads the vocabulary
                    copies.append((target[tuple(slice(size) for size in part.shape)], part))
        if not copies:
            return
        spans = [np.lib.array_utils.byte_bounds(part) for _, part in copies]
        begin = memory.ctypes.data
        info.read(memory, min(low for low, _ in spans) - begin, max(high for _, high in spans) - begin)
        for target, part in copies:
            copy_tiled(target, part)

    def _memory(self, size: int) -> np.ndarray:
        """uint8 [size], the same memory each time in a thread."""
        memory = getattr(self._scratch, "memory", None)
        if memory is None or memory.size < size:
            memory = self._scratch.memory = np.empty(size, np.uint8)
        return memory[:size]


def _zeros(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return fresh_memory(size).view(dtype).reshape(shape)
