"""Log-probabilities of the reference model for every packed preference row, on disk."""

from __future__ import annotations

import pathlib

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, write_json

VALUES_FILE = "reference_logps.npy"
INDEX_FILE = "reference_logps.json"


class ReferenceLogps:
    """float32 [rows, S], memory-mapped: column s holds segment s + 1 of the row, as in `Batch.reference_logps`.

    Attributes:
      directory: where the two files lie, usually the shard's directory.
      digest: of the reference model and the rows; other values belong to another digest.
      values: the array; rows that were not written yet are NaN.
    """

    def __init__(self, directory: pathlib.Path, digest: str, values: np.ndarray):
        self.directory = directory
        self.digest = digest
        self.values = values

    @classmethod
    def create(cls, directory: pathlib.Path, digest: str, rows: int, segments: int) -> ReferenceLogps:
        """A new array to be filled through `values[...] = ` and made valid by `save`."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / INDEX_FILE).unlink(missing_ok=True)
            values = np.lib.format.open_memmap(directory / VALUES_FILE, "w+", np.float32, (rows, segments))
            values[:] = np.nan
        except OSError as error:
            raise SeallmError(f"cannot write {directory / VALUES_FILE}: {error.strerror or error}") from error
        return cls(directory, digest, values)

    def save(self) -> None:
        """Flushes the values and writes the index, last. Raises SeallmError while a row is missing."""
        missing = int(np.isnan(self.values).any(axis=1).sum())
        if missing:
            raise SeallmError(f"{missing} of {len(self.values)} rows have no reference log-probabilities yet")
        if isinstance(self.values, np.memmap):
            self.values.flush()
        write_json(self.directory / INDEX_FILE, {"digest": self.digest, "shape": list(self.values.shape)})

    @classmethod
    def open(cls, directory: pathlib.Path, digest: str | None = None) -> ReferenceLogps:
        """The saved array, read-only. Raises SeallmError when it is missing, damaged or of another digest."""
        index = read_json(directory / INDEX_FILE)
        if digest is not None and index.get("digest") != digest:
            raise SeallmError(f"{directory / VALUES_FILE} belongs to another reference model or data; compute it again")
        try:
            values = np.load(directory / VALUES_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SeallmError(f"{directory / VALUES_FILE} cannot be read ({error}); compute it again") from error
        if list(values.shape) != index.get("shape") or values.dtype != np.float32:
            raise SeallmError(f"{directory / VALUES_FILE} does not match its index; compute it again")
        return cls(directory, index["digest"], values)
