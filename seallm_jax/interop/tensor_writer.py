"""Safetensors shards written piece by piece: no shard, and no tensor larger than a few blocks, is held in memory."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from seallm_jax.core.paths import write_json
from seallm_jax.interop.tensor_files import INDEX, SINGLE

# as safetensors names what is written
STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Name and shape of a tensor to write."""

    name: str
    shape: tuple[int, ...]

    def nbytes(self, dtype: np.dtype) -> int:
        """Size in `dtype`."""
        return math.prod(self.shape) * dtype.itemsize


def write_tensors(
    directory: pathlib.Path,
    tensors: Sequence[TensorSpec],
    blocks: Iterable[np.ndarray],
    *,
    dtype: np.dtype,
    shard_bytes: int,
) -> list[str]:
    """Writes tensors in order to model.safetensors, or to numbered shards and an index. Returns the file names.

    A shard takes tensors until the next one would make it larger than `shard_bytes`.

    Args:
      directory: exists.
      tensors: what the files hold, in this order.
      blocks: the tensors' elements in order, C-contiguous arrays of `dtype`. A tensor may come in several blocks;
        none reaches from one tensor into the next.
      dtype: float32, float16 or bfloat16.
      shard_bytes: largest size of a file, unless one tensor is larger.

    Raises:
      ValueError: the blocks are not those of `tensors`.
      OSError: the disk is full or the path cannot be written.
    """
    shards = list(_shards(tensors, dtype, shard_bytes))
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    remaining = iter(blocks)
    for file, shard in zip(names, shards, strict=True):
        with open(directory / file, "wb") as stream:
            stream.write(_header(shard, dtype))
            for tensor in shard:
                missing = tensor.nbytes(dtype)
                while missing > 0:
                    block = next(remaining, None)
                    if block is None or block.dtype != dtype or block.nbytes > missing:
                        raise ValueError(f"{tensor.name} lacks {missing} bytes of {dtype}")
                    stream.write(block.reshape(-1).view(np.uint8).data)
                    missing -= block.nbytes
    if len(shards) > 1:
        weight_map = {tensor.name: file for file, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(tensor.nbytes(dtype) for tensor in tensors)
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return names


def _shards(tensors: Sequence[TensorSpec], dtype: np.dtype, shard_bytes: int) -> Iterator[list[TensorSpec]]:
    shard: list[TensorSpec] = []
    size = 0
    for tensor in tensors:
        nbytes = tensor.nbytes(dtype)
        if shard and size + nbytes > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += nbytes
    yield shard


def _header(tensors: Sequence[TensorSpec], dtype: np.dtype) -> bytes:
    """The format's header: its length in 8 bytes, then JSON, filled up so that the tensors begin at a multiple of 8."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.nbytes(dtype)
        header[tensor.name] = {
            "dtype": STORED_NAMES[dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
