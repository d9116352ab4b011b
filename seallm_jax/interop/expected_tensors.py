"""What a checkpoint must hold, compared with what its files hold, before memory is spent."""

from __future__ import annotations

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors, tied_names
from seallm_jax.interop.tensor_files import STORED_TYPES, TensorFiles, TensorInfo
from seallm_jax.models.families.registry import family_named


def find_tensors(files: TensorFiles, config: ModelConfig) -> dict[str, TensorInfo]:
    """Where each tensor of the model is, by its full name.

    A checkpoint saved from the class without a head lacks the family's prefix in all names. A copy of a tied head, and
    what the family calls redundant, is passed over.

    Raises:
      SeallmError: the first tensor that is missing, unexpected, or of a wrong shape or dtype.
    """
    family = family_named(config.family)
    expected = {tensor.name: tensor.shape for tensor in checkpoint_tensors(config)}
    prefix = family.prefix
    bare = bool(prefix) and not any(name.startswith(prefix) for name in files.tensors)
    found: dict[str, TensorInfo] = {}
    for name, shape in expected.items():
        stored = name.removeprefix(prefix) if bare else name
        if stored not in files.tensors:
            raise SeallmError(f"{files.directory} has no tensor {stored}; the checkpoint is incomplete: copy it again")
        info = found[name] = files.tensors[stored]
        if info.shape != shape:
            raise SeallmError(
                f"tensor {stored} in {info.file} has shape {info.shape}; config.json asks for {shape}: they do not "
                "belong together"
            )
        if info.dtype not in STORED_TYPES:
            raise SeallmError(
                f"tensor {stored} in {info.file} is {info.dtype}; only {', '.join(STORED_TYPES)} can be read: use the "
                "checkpoint that is not quantised"
            )
    used = {info for info in found.values()}
    redundant = tied_names(config)
    for name, info in files.tensors.items():
        if info not in used and name not in redundant and not name.endswith(tuple(family.redundant)):
            raise SeallmError(
                f"unexpected tensor {name} in {info.file}; config.json describes a model without it: they do not "
                "belong together"
            )
    return found
