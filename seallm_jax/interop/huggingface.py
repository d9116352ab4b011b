"""Hugging Face folders in and out: what other rooms import."""

from __future__ import annotations

import pathlib

from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.export_model import ExportSummary, export_model
from seallm_jax.interop.hub import model_folder
from seallm_jax.interop.import_model import ImportedModel, import_model
from seallm_jax.interop.model_files import ModelFiles

__all__ = [
    "ExportSummary",
    "ImportedModel",
    "ModelFiles",
    "export_model",
    "import_model",
    "model_folder",
    "read_config",
]


def read_config(directory: str | pathlib.Path, *, tensor: int = 1) -> ModelConfig:
    """The shape of the model in a Hugging Face folder; see `ModelFiles.shape`."""
    return ModelFiles(directory).shape(tensor=tensor)
