"""Safetensors shards written block by block: no shard, and no tensor larger than a few blocks, is held in memory."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import threading
from collections.abc import Iterator, Sequence

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


class TensorWriter:
    """Writes tensors in blocks, in any order, from any thread, to model.safetensors or to numbered shards and an index.

    A shard takes tensors until the next one would make it larger than `shard_bytes`.

    Attributes:
      files: names of the files.
    """

    def __init__(self, directory: pathlib.Path, tensors: Sequence[TensorSpec], *, dtype: np.dtype, shard_bytes: int):
        """Writes the files' headers.

        Args:
          directory: exists.
          tensors: what the files hold, in this order.
          dtype: float32, float16 or bfloat16.
          shard_bytes: largest size of a file, unless one tensor is larger.

        Raises:
          OSError: the disk is full or the path cannot be written.
        """
        self._directory, self._dtype = directory, dtype
        self._writing = threading.Lock()
        self._missing = sum(tensor.nbytes(dtype) for tensor in tensors)
        shards = list(_shards(tensors, dtype, shard_bytes))
        self.files = [SINGLE]
        if len(shards) > 1:
            self.files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
        self._places: dict[str, tuple[str, int, int]] = {}  # file, first byte and last
        for file, shard in zip(self.files, shards, strict=True):
            header = _header(shard, dtype)
            (directory / file).write_bytes(header)
            position = len(header)
            for tensor in shard:
                self._places[tensor.name] = file, position, position + tensor.nbytes(dtype)
                position += tensor.nbytes(dtype)

    def write(self, name: str, block: np.ndarray, first: int = 0) -> None:
        """Writes elements of a tensor.

        Args:
          name: of the tensor.
          block: C-contiguous, of the writer's dtype.
          first: elements of the tensor before the block.

        Raises:
          ValueError: another dtype, or more than the tensor has.
          OSError: the disk is full.
        """
        file, position, end = self._places[name]
        position += first * self._dtype.itemsize
        if block.dtype != self._dtype or position + block.nbytes > end:
            raise ValueError(f"{name} has no place for {block.size} {block.dtype} behind {first}")
        view = block.reshape(-1).view(np.uint8).data
        # one at a time: the system lets one thread write a file, and the others would spin for it
        with self._writing, open(self._directory / file, "r+b", buffering=0) as stream:
            stream.seek(position)
            while view.nbytes:
                view = view[stream.write(view) :]
            self._missing -= block.nbytes

    def finish(self) -> None:
        """Writes the index, if there is to be one. Raises ValueError if elements were not written."""
        if self._missing:
            raise ValueError(f"{self._missing} bytes were not written")
        if len(self.files) > 1:
            total = sum(end - begin for _, begin, end in self._places.values())
            weight_map = {name: file for name, (file, _, _) in self._places.items()}
            write_json(self._directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


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
