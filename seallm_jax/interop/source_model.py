"""A Hugging Face folder to read tensors from, in the checkpoint's own layout, one at a time."""

from __future__ import annotations

import pathlib

import numpy as np

from seallm_jax.interop.expected_tensors import find_tensors
from seallm_jax.interop.hub import model_folder
from seallm_jax.interop.model_files import ModelFiles
from seallm_jax.interop.tensor_files import STORED_TYPES, TensorFiles


class SourceModel:
    """A model on disk whose names, shapes and dtypes have been checked.

    Attributes:
      directory: its folder.
      files: its config.json and generation_config.json.
      config: its shape.
    """

    def __init__(self, source: str | pathlib.Path):
        """Opens a folder, or a model of the Hub. Raises SeallmError for whatever `import_model` does."""
        self.directory = model_folder(source)
        self.files = ModelFiles(self.directory)
        self.config = self.files.shape()
        self._found = find_tensors(TensorFiles(self.directory), self.config)

    def tensor(self, name: str) -> np.ndarray:
        """The tensor with this name in the family's weight table, in the dtype of the file."""
        info = self._found[name]
        array = np.empty(info.shape, STORED_TYPES[info.dtype])
        info.read(array.reshape(-1).view(np.uint8))
        return array
