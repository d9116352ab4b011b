"""What a model's folder says beside its tensors: config.json and generation_config.json."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.interop.tensor_files import DTYPES
from seallm_jax.models.families.registry import family_of

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"


class ModelFiles:
    """The two files of a folder. They are what an export takes over from the base model.

    Attributes:
      directory: the folder.
      config: values of config.json.
      generation: values of generation_config.json; empty without one.
    """

    def __init__(self, directory: str | pathlib.Path):
        """Raises SeallmError for a folder without a config.json, or a damaged file."""
        self.directory = pathlib.Path(directory)
        if not (self.directory / CONFIG).is_file():
            raise SeallmError(f"{self.directory} has no {CONFIG}; it is not a Hugging Face model folder")
        self.config = _read_object(self.directory / CONFIG)
        generation = self.directory / GENERATION_CONFIG
        self.generation = _read_object(generation) if generation.is_file() else {}

    def shape(self, *, tensor: int = 1) -> ModelConfig:
        """Shape of the model, its vocabulary padded for `tensor` devices.

        Raises:
          SeallmError: an architecture, or a switch of it, that is not supported; with key and value.
        """
        try:
            config = family_of(self.config).config_from_huggingface(self.config)
        except SeallmError as error:
            raise SeallmError(f"{self.directory}: {error}") from error
        padded = Vocabulary.padded(config.vocabulary_size, tensor=tensor).padded_size
        return dataclasses.replace(config, padded_vocabulary_size=padded)

    @property
    def dtype(self) -> str | None:
        """The tensors' dtype as transformers 4 or 5 names it; None when it is not told or not one that is written."""
        found = str(self.config.get("dtype") or self.config.get("torch_dtype") or "").removeprefix("torch.")
        return found if found in DTYPES else None

    def copy_to(self, directory: pathlib.Path) -> None:
        """Copies the files, for an export that comes later."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, GENERATION_CONFIG):
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, directory / name)


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise SeallmError(f"{path} is not a JSON object; download the file again")
    return values
