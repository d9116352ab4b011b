"""The embedded sample: original text in ten languages (CC0), read when a config names no files of its own."""

from __future__ import annotations

import pathlib

import seallm_jax
from seallm_jax.core.errors import SeallmError

SAMPLE_KINDS = ("corpus", "parallel", "instructions", "preferences", "choices")


def sample_path(kind: str) -> pathlib.Path:
    """Directory of one kind of sample files. Raises ValueError for a kind that does not exist."""
    if kind not in SAMPLE_KINDS:
        raise ValueError(f"no sample of kind {kind!r}; there are {', '.join(SAMPLE_KINDS)}")
    return pathlib.Path(seallm_jax.__file__).parent / "sample" / kind


def resolve_path(path: str, kind: str) -> pathlib.Path:
    """`path` when it is given, else the embedded sample. Raises SeallmError when it does not exist."""
    resolved = pathlib.Path(path).expanduser() if path else sample_path(kind)
    if not resolved.exists():
        raise SeallmError(f"{kind} path {resolved} does not exist")
    return resolved
