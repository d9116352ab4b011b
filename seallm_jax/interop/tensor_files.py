"""The safetensors files of a Hugging Face folder: names and shapes first, one tensor at a time after that."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, write_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(jnp.bfloat16)}
# what can be read, as safetensors names it
STORED_TYPES = {
    "F64": np.dtype(np.float64),
    "F32": DTYPES["float32"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is and what it looks like. `dtype` is the name that safetensors uses, `offset` is in bytes."""

    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: str
    offset: int


class TensorFiles:
    """The tensors of a folder. Files are mapped into memory: what is not asked for is not read."""

    def __init__(self, directory: pathlib.Path):
        """Reads the headers of all files.

        Raises:
          SeallmError: no safetensors files, only PyTorch pickles, a file that the index names and that is not there, or
            one that is damaged or cut short.
        """
        self.directory = directory
        self.tensors = {name: info for file in self._files() for name, info in _header(file).items()}

    def tensor(self, name: str) -> np.ndarray:
        """A tensor as a read-only view of its file; bfloat16 is that of ml_dtypes."""
        info = self.tensors[name]
        return np.memmap(info.file, STORED_TYPES[info.dtype], mode="r", offset=info.offset, shape=info.shape)

    def _files(self) -> list[pathlib.Path]:
        if not self.directory.is_dir():
            raise SeallmError(f"{self.directory} is not a folder")
        if (self.directory / INDEX).exists():
            index = read_json(self.directory / INDEX)
            try:
                names = sorted(set(index["weight_map"].values()))
            except (KeyError, TypeError, AttributeError):
                raise SeallmError(f"{self.directory / INDEX} has no weight_map; download the file again") from None
            files = [self.directory / pathlib.PurePath(name).name for name in names]
            for file in files:
                if not file.is_file():
                    raise SeallmError(f"{file} is missing, though {INDEX} names it; download it")
            return files
        if (self.directory / SINGLE).is_file():
            return [self.directory / SINGLE]
        pickles = sorted(self.directory.glob("*.bin")) + sorted(self.directory.glob("*.pt*"))
        if pickles:
            raise SeallmError(
                f"{self.directory} has only {pickles[0].name}, a pickle, which can run code when it is read; "
                "convert the checkpoint to safetensors"
            )
        raise SeallmError(f"{self.directory} has no {SINGLE} and no {INDEX}")


def _header(file: pathlib.Path) -> dict[str, TensorInfo]:
    """Names, shapes and places of the tensors in a file that safetensors has found whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"), open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise SeallmError(
            f"{file} ({file.stat().st_size} bytes) is damaged or cut short: {error}; download or copy it again"
        ) from error
    header.pop("__metadata__", None)
    return {
        name: TensorInfo(file, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


@dataclasses.dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write; `read` fetches it when its file is written."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write_tensors(
    directory: pathlib.Path,
    tensors: Sequence[PlannedTensor],
    *,
    dtype: np.dtype,
    shard_bytes: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[str]:
    """Writes tensors in order to model.safetensors, or to numbered shards and an index. Returns the file names.

    A shard takes tensors until the next one would make it larger than `shard_bytes`; host memory holds one shard.
    """
    from safetensors.numpy import save_file

    shards = list(_shards(tensors, dtype.itemsize, shard_bytes))
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    weight_map: dict[str, str] = {}
    total = 0
    for file, shard in zip(names, shards, strict=True):
        arrays = {}
        for tensor in shard:
            # safetensors writes the buffer as it lies in memory, whatever the strides
            array = np.ascontiguousarray(tensor.read().astype(dtype, copy=False))
            if array.shape != tensor.shape:
                raise ValueError(f"{tensor.name} has shape {array.shape}, planned was {tensor.shape}")
            _check_finite(tensor.name, array)
            arrays[tensor.name] = array
            weight_map[tensor.name] = file
            total += array.nbytes
            advance(1)
        save_file(arrays, directory / file, metadata={"format": "pt"})
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return names


def _shards(tensors: Iterable[PlannedTensor], itemsize: int, shard_bytes: int) -> Iterable[list[PlannedTensor]]:
    shard: list[PlannedTensor] = []
    size = 0
    for tensor in tensors:
        nbytes = int(np.prod(tensor.shape)) * itemsize
        if shard and size + nbytes > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += nbytes
    yield shard


def _check_finite(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        way_out = "export as bfloat16 or float32" if array.dtype == np.float16 else "the model has diverged"
        raise SeallmError(f"tensor {name} holds values that are not finite in {array.dtype}; {way_out}")
