"""Files of fixed-size records below one line that says under which settings they were written."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError


def record_header(kind: str, settings: dict[str, Any]) -> bytes:
    """The first line of a record file."""
    return json.dumps({"format": kind, **settings}, sort_keys=True).encode() + b"\n"


def read_records(path: pathlib.Path, header: bytes, record_type: np.dtype) -> np.ndarray:
    """The records of a file, mapped from disk, read-only.

    Raises:
      SeallmError: the file is missing or damaged, or was written under other settings.
    """
    try:
        with open(path, "rb") as file:
            found = file.read(len(header))
        size = path.stat().st_size - len(header)
    except OSError as error:
        raise SeallmError(f"cannot read {path}: {error.strerror or error}; run the corpus stage again") from error
    if found != header or size % record_type.itemsize:
        raise SeallmError(f"{path} is damaged or was written under other settings; run the corpus stage again")
    if not size:
        return np.zeros(0, record_type)
    return np.memmap(path, record_type, mode="r", offset=len(header))
