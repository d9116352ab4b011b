"""What a model family is: a Hugging Face architecture, its config.json both ways, and its weight table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families.canonical import canonical
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.weight import Weight


@dataclasses.dataclass(frozen=True)
class Family:
    """A family is a small file that ends in one of these.

    Attributes:
      name: value of `ModelConfig.family`.
      architecture: class in transformers, as `architectures` in config.json names it.
      model_type: `model_type` in config.json.
      defaults: what the class in transformers has for keys that a config.json leaves out.
      read: from a config.json to the model's shape; vocabulary not padded.
      write: from the model's shape to the keys of a config.json that the family has.
      weights: the rows of the weight table that a model of this shape has, in the order of the layers.
      bare_architecture: class without a head, where published checkpoints of the family name it.
      prefix: what the names of tensors may lack at their beginning, where checkpoints were saved from that class.
      redundant: names (or their endings) of tensors that old checkpoints carry and that mean nothing.
    """

    name: str
    architecture: str
    model_type: str
    defaults: Mapping[str, Any]
    read: Callable[[ConfigReader], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]
    weights: Callable[[ModelConfig], tuple[Weight, ...]]
    bare_architecture: str = ""
    prefix: str = ""
    redundant: tuple[str, ...] = ()

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Reads the values of a config.json, as transformers 4 or 5 writes it. `padded_vocabulary_size` stays 0.

        Raises:
          SeallmError: a model that this decoder would compute differently, or a missing key; with key and value.
        """
        read = ConfigReader(values, self.defaults)
        read.choice("model_type", {self.model_type: self.model_type})
        read.refuse_unless("quantization_config", None)
        read.refuse_unless("per_layer_config", None, {})
        read.refuse_unless("use_bidirectional_attention", None, False)
        try:
            return canonical(dataclasses.replace(self.read(read), family=self.name))
        except ValueError as error:
            raise SeallmError(f"config.json: {error}") from None

    def config_to_huggingface(self, config: ModelConfig) -> dict[str, Any]:
        """A config.json that transformers 4 and 5 read alike, without token ids and dtype; vocabulary not padded.

        Raises:
          SeallmError: the family has no model of this shape; with the switch that it lacks.
        """
        wanted = canonical(config)
        values = {"architectures": [self.architecture], "model_type": self.model_type} | self.write(wanted)
        written = self.config_from_huggingface(values)
        for field in dataclasses.fields(ModelConfig):
            ours, theirs = getattr(wanted, field.name), getattr(written, field.name)
            if ours != theirs and field.name != "padded_vocabulary_size":
                raise SeallmError(
                    f"model.{field.name} is {ours!r}; a {self.architecture} of this shape has {theirs!r}: "
                    "choose another model.family"
                )
        return values
