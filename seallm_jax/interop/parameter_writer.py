"""Parameters on any mesh of any number of processes, block by block into a checkpoint's tensors."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import CheckpointTensor
from seallm_jax.interop.finite import is_finite
from seallm_jax.interop.tensor_block import Bounds, Index, TensorBlock, tensor_blocks
from seallm_jax.interop.tensor_writer import TensorWriter
from seallm_jax.interop.tiled_copy import copy_tiled


class Part(NamedTuple):
    """An array on one device, and what it is of a parameter."""

    bounds: Bounds
    array: jax.Array


class Piece(NamedTuple):
    """A tensor and where its elements are: by path, the parts on this process's devices, each once."""

    tensor: CheckpointTensor
    parts: Mapping[str, Sequence[Part]]


def parameter_pieces(leaves: Mapping[str, jax.Array], tensors: Sequence[CheckpointTensor]) -> Iterator[Piece]:
    """Yields each tensor with the parts of its parameters, where they lie.

    Parameters that are spread over processes are gathered, one layer at a time: then all processes must run through
    this to the end, and in step.
    """
    for tensor in tensors:
        yield Piece(tensor, {row.path: _parts(leaves[row.path], tensor.layer) for row in tensor.rows})


def write_parameters(
    pieces: Iterable[Piece],
    config: ModelConfig,
    writer: TensorWriter,
    dtype: np.dtype,
    *,
    advance: Callable[[int, str], None] = lambda n, note: None,
) -> None:
    """Writes each tensor on several threads, of which each holds one block.

    Args:
      pieces: what `parameter_pieces` yields.
      config: the model's shape; rows that pad the vocabulary are left out.
      writer: has a place for each tensor.
      dtype: that of `writer`.
      advance: called for each tensor.

    Raises:
      SeallmError: values that are not finite in `dtype`.
      OSError: the disk is full.
    """
    threads = min(os.cpu_count() or 1, 15) + 1  # one of them writes or waits to
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    scratch = threading.local()
    waiting: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    def copy(piece: Piece, block: TensorBlock) -> None:
        size = int(np.prod(block.shape)) * dtype.itemsize
        memory = getattr(scratch, "memory", None)
        if memory is None or memory.size < size:
            memory = scratch.memory = np.empty(size, np.uint8)
        array = memory[:size].view(dtype).reshape(block.shape)
        _fill(array, piece, block, config)
        writer.write(piece.tensor.name, array, block.first_element)

    try:
        for piece in pieces:
            for block in tensor_blocks(piece.tensor, config, dtype.itemsize):
                waiting.append(pool.submit(copy, piece, block))
                while len(waiting) > 2 * threads:
                    waiting.popleft().result()
            advance(1, piece.tensor.name)
        while waiting:
            waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(array: np.ndarray, piece: Piece, block: TensorBlock, config: ModelConfig) -> None:
    """Copies what all parts have of a block."""
    for row in piece.tensor.rows:
        for bounds, part in piece.parts[row.path]:
            shared = block.shared(array, row, bounds, config)
            if shared is not None:
                index, target = shared
                with np.errstate(over="ignore"):  # what float16 cannot hold is found below
                    copy_tiled(target, _fetch(part, index, array.dtype))
    if not is_finite(array):
        way_out = "export as bfloat16 or float32" if array.dtype == np.float16 else "the model has diverged"
        raise SeallmError(f"tensor {piece.tensor.name} holds values that are not finite in {array.dtype}; {way_out}")


def _parts(leaf: jax.Array, layer: int | None) -> list[Part]:
    """What lies on this process's devices, each part once; of a stacked parameter what holds the layer."""
    if not leaf.is_fully_addressable:
        assert isinstance(leaf.sharding, NamedSharding)
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
        start, size = (0, leaf.shape[0]) if layer is None else (layer, 1)
        # waits: a process that is not the one that writes would run far ahead
        whole = jax.block_until_ready(_gather(everywhere, size)(leaf, start))
        bounds = ((start, start + size), *((0, length) for length in leaf.shape[1:]))
        return [Part(bounds, whole.addressable_data(0))]
    parts: dict[Bounds, jax.Array] = {}
    for shard in leaf.addressable_shards:
        spans = [index.indices(size) for index, size in zip(shard.index, leaf.shape, strict=True)]
        bounds = tuple((start, stop) for start, stop, _ in spans)
        if layer is None or bounds[0][0] <= layer < bounds[0][1]:
            parts.setdefault(bounds, shard.data)
    return [Part(bounds, data) for bounds, data in parts.items()]


@functools.cache
def _gather(sharding: NamedSharding, size: int) -> Callable[[jax.Array, int], jax.Array]:
    """Compiled: rows `start` to `start + size` of a parameter on every device."""
    return jax.jit(
        lambda leaf, start: jax.lax.dynamic_slice_in_dim(leaf, start, size) if size < leaf.shape[0] else leaf,
        out_shardings=sharding,
    )


def _fetch(array: jax.Array, index: Index, dtype: np.dtype) -> np.ndarray:
    """Elements of an array on the host. From an accelerator nothing else is fetched, in `dtype`; a CPU's is a view."""
    (device,) = array.devices()
    if device.platform == "cpu":
        return np.asarray(array)[index]
    starts, sizes = zip(*((i, 1) if isinstance(i, int) else (i.start, i.stop - i.start) for i in index), strict=True)
    cut = np.asarray(_cut(array, starts, sizes=sizes, dtype=dtype))
    return cut[tuple(0 if isinstance(i, int) else slice(None) for i in index)]


@functools.partial(jax.jit, static_argnames=("sizes", "dtype"))
def _cut(array: jax.Array, starts: tuple[int, ...], *, sizes: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    return jax.lax.dynamic_slice(array, starts, sizes).astype(dtype)
