"""The tensors of a checkpoint, block by block, from parameters on any mesh of any number of processes."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import CheckpointTensor
from seallm_jax.interop.fresh_memory import fresh_memory
from seallm_jax.interop.tiled_copy import copy_tiled

BLOCK_BYTES = 16 << 20  # rows of a large matrix are fetched in blocks of this size
AHEAD_BYTES = 96 << 20  # what may wait to be written, unless two blocks are larger
KEPT_BUFFERS = 16  # memory of written blocks, kept for later ones
CHECK_ELEMENTS = 1 << 16  # looked at in one go, few enough for the processor's cache

Bounds = tuple[tuple[int, int], ...]  # start and stop of each dimension


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


def parameter_blocks(
    pieces: Iterable[Piece],
    config: ModelConfig,
    dtype: np.dtype,
    *,
    advance: Callable[[int, str], None] = lambda n, note: None,
) -> Iterator[np.ndarray]:
    """Yields the elements of each tensor in order, as C-contiguous arrays of `dtype`, in one or more blocks a tensor.

    Several threads put blocks into the checkpoint's layout while earlier ones are written. A block is to be used
    before the next one is asked for: its memory comes back.

    Args:
      pieces: what `parameter_pieces` yields.
      config: the model's shape; rows that pad the vocabulary are left out.
      dtype: float32, float16 or bfloat16.
      advance: called for each tensor.

    Raises:
      SeallmError: values that are not finite in `dtype`.
    """
    pool = concurrent.futures.ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, 16)))
    waiting: collections.deque[tuple[np.ndarray, concurrent.futures.Future[np.ndarray]]] = collections.deque()
    free: list[np.ndarray] = []
    ahead = 0

    def oldest() -> Iterator[np.ndarray]:
        nonlocal ahead
        memory, block = waiting.popleft()
        yield block.result()
        ahead -= memory.size
        free.append(memory)
        del free[:-KEPT_BUFFERS]

    try:
        for piece in pieces:
            for start, stop in _row_ranges(piece.tensor, dtype):
                memory = _take(free, (stop - start) * _row_bytes(piece.tensor, dtype))
                while len(waiting) > 1 and ahead + memory.size > AHEAD_BYTES:
                    yield from oldest()
                ahead += memory.size
                waiting.append((memory, pool.submit(_block, piece, config, dtype, start, stop, memory)))
            advance(1, piece.tensor.name)
        while waiting:
            yield from oldest()
    finally:
        pool.shutdown(cancel_futures=True)


def _take(free: list[np.ndarray], size: int) -> np.ndarray:
    """uint8 [size or more]: the smallest of `free` that is not twice as large, else new memory.

    Memory that has been written to before costs no page faults.
    """
    fitting = [index for index, memory in enumerate(free) if size <= memory.size <= 2 * size]
    if fitting:
        return free.pop(min(fitting, key=lambda index: free[index].size))
    return fresh_memory(size)


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


@functools.partial(jax.jit, static_argnames=("size", "dtype"))
def _cut(array: jax.Array, start: int, *, size: int, dtype: np.dtype) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array, start, size).astype(dtype)


def _rows(array: jax.Array, start: int, stop: int, dtype: np.dtype) -> np.ndarray:
    """Rows of an array on the host. From an accelerator nothing else is fetched, in `dtype`; a CPU's is a view."""
    (device,) = array.devices()
    if device.platform == "cpu":
        return np.asarray(array)[start:stop]
    return np.asarray(_cut(array, start, size=stop - start, dtype=dtype))


def _row_bytes(tensor: CheckpointTensor, dtype: np.dtype) -> int:
    return math.prod(tensor.shape[1:]) * dtype.itemsize


def _row_ranges(tensor: CheckpointTensor, dtype: np.dtype) -> list[tuple[int, int]]:
    """Matrices that lie here as they do in the checkpoint are cut into blocks of rows; other tensors come whole."""
    rows = tensor.shape[0]
    step = BLOCK_BYTES // _row_bytes(tensor, dtype) if tensor.copied_by_rows else rows
    return [(start, min(start + step, rows)) for start in range(0, rows, max(step, 1))]


def _block(piece: Piece, config: ModelConfig, dtype: np.dtype, start: int, stop: int, memory: np.ndarray) -> np.ndarray:
    """Rows `start` to `stop` of the checkpoint's tensor, in `memory`: all of them, unless it is copied by rows."""
    tensor = piece.tensor
    size = (stop - start) * _row_bytes(tensor, dtype)
    block = memory[:size].view(dtype).reshape(stop - start, *tensor.shape[1:])
    for row in tensor.rows:
        # what is written through this view of the block lands where the checkpoint wants it
        target = block if tensor.copied_by_rows else row.from_checkpoint(block, config)
        assert np.may_share_memory(target, block), row
        for bounds, array in piece.parts[row.path]:
            if tensor.layer is not None:
                low = bounds[0][0]
                source, bounds = _rows(array, tensor.layer - low, tensor.layer - low + 1, dtype)[0], bounds[1:]
            elif tensor.copied_by_rows:
                (low, high), *others = bounds
                first, last = max(low, start), min(high, stop)
                if first >= last:
                    continue
                source = _rows(array, first - low, last - low, dtype)
                bounds = ((first - start, last - start), *others)
            else:
                source = _rows(array, 0, array.shape[0], dtype)
            place = target[tuple(slice(*span) for span in bounds)]  # smaller where the part pads the vocabulary
            with np.errstate(over="ignore"):  # what float16 cannot hold is found below
                copy_tiled(place, source[tuple(slice(size) for size in place.shape)])
    if not is_finite(block):
        way_out = "export as bfloat16 or float32" if dtype == np.float16 else "the model has diverged"
        raise SeallmError(f"tensor {tensor.name} holds values that are not finite in {dtype}; {way_out}")
    return block


def is_finite(array: np.ndarray) -> bool:
    """Whether no element of a C-contiguous array of floats is infinite or no number.

    Looks at bits: those of positive numbers grow with the number up to infinity, and beyond are no numbers; read as
    unsigned, those of negative ones follow in the same order.
    """
    signed, unsigned = (array.reshape(-1).view(f"{kind}{array.dtype.itemsize}") for kind in "iu")
    infinity, negative = (np.array([value], array.dtype) for value in (np.inf, -np.inf))
    highest, highest_negative = infinity.view(signed.dtype)[0], negative.view(unsigned.dtype)[0]
    for start in range(0, signed.size, CHECK_ELEMENTS):
        part = slice(start, start + CHECK_ELEMENTS)
        if signed[part].max() >= highest or unsigned[part].max() >= highest_negative:
            return False
    return True
