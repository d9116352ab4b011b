"""The safetensors files of a Hugging Face folder: names and shapes first, one tensor at a time after that."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json

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

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * STORED_TYPES[self.dtype].itemsize

    def read(self, buffer: np.ndarray, start: int = 0) -> None:
        """Fills `buffer` (uint8) with the tensor's bytes from `start` on.

        Files are read, not mapped: what is in memory is counted there, and a file that shrinks meanwhile is an error
        and not a crash.

        Raises:
          SeallmError: the file ends early or cannot be read.
        """
        view = memoryview(buffer.data)
        try:
            with open(self.file, "rb", buffering=0) as stream:
                stream.seek(self.offset + start)
                while view.nbytes:
                    count = stream.readinto(view)
                    if not count:
                        raise SeallmError(f"{self.file} became shorter while it was read; download or copy it again")
                    view = view[count:]
        except OSError as error:
            raise SeallmError(f"cannot read {self.file}: {error.strerror or error}; copy it again") from error


class TensorFiles:
    """The tensors of a folder.

    Attributes:
      directory: the folder.
      tensors: where each tensor is, by name.
    """

    def __init__(self, directory: pathlib.Path):
        """Reads the headers of all files.

        Raises:
          SeallmError: no safetensors files, only PyTorch pickles, a file that the index names and that is not there, or
            one that is damaged or cut short.
        """
        self.directory = directory
        self.tensors = {name: info for file in self._files() for name, info in _header(file).items()}

    def tensor(self, name: str) -> np.ndarray:
        """A tensor in memory; bfloat16 is that of ml_dtypes."""
        info = self.tensors[name]
        array = np.empty(info.shape, STORED_TYPES[info.dtype])
        info.read(array.reshape(-1).view(np.uint8))
        return array

    def _files(self) -> list[pathlib.Path]:
        if not self.directory.is_dir():
            raise SeallmError(f"{self.directory} is not a folder")
        if (self.directory / INDEX).exists():
            index = read_json(self.directory / INDEX)
            try:
                names = sorted(set(index["weight_map"].values()))
                files = [self.directory / pathlib.PurePath(name).name for name in names]
            except (KeyError, TypeError, AttributeError):
                raise SeallmError(f"{self.directory / INDEX} has no weight_map; download the file again") from None
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
        raise SeallmError(f"{self.directory} has no {SINGLE} and no {INDEX}; download or export the whole model")


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
