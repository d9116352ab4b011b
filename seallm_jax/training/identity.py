"""What a checkpoint belongs to, and whether a run may continue from it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.model_config import stored_model
from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.training import partition


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to. A run continues only from a checkpoint with the same identity.

    Attributes:
      model: shape of the model. `padded_vocabulary_size` may differ, as it does between meshes.
      tokenizer_digest: digest of the tokenizer that made the rows.
      curriculum_digest: digest of the order of the rows.
      batch_rows: rows per step.
      seed: seed of the run.
      trainable: patterns of the parameters that have optimizer state.
      optimizer: which optimizer the state belongs to.
      parameter_dtype: dtype of the parameters.
      state_dtype: dtype of the optimizer's moments.
      neurons: digest of the neurons that are trained alone; "" where there is no such choice.
      adapter: what is trained in place of the model. Checkpoints then hold what it brings in and what is trained, and
        not the frozen rest, which is that of the model that the stage began with.
    """

    model: ModelConfig
    tokenizer_digest: str
    curriculum_digest: str
    batch_rows: int
    seed: int
    trainable: tuple[str, ...] = ("*",)
    adapter: AdapterConfig | None = None
    optimizer: str = "adamw"
    parameter_dtype: str = "float32"
    state_dtype: str = "float32"
    neurons: str = ""

    def stored(self, parameters: Any) -> Any:
        """The part of a tree of parameters that checkpoints hold."""
        if self.adapter is None:
            return parameters
        return partition.split(parameters, (*self.trainable, *self.adapter.parameters))[0]


def check_identity(path: pathlib.Path, saved: Mapping[str, Any], expected: Identity) -> None:
    """Raises SeallmError, saying what differs and the way out, unless a run may go on from a checkpoint."""
    check_model(path, saved["model"], expected.model)
    if saved["tokenizer_digest"] != expected.tokenizer_digest:
        raise SeallmError(tokenizer_mismatch(path, saved["tokenizer_digest"], expected.tokenizer_digest))
    defaults = {field.name: field.default for field in dataclasses.fields(Identity)[5:]}
    for key, meaning in (
        ("curriculum_digest", "order of the training rows"),
        ("batch_rows", "number of rows per step"),
        ("seed", "seed"),
        ("trainable", "set of trainable parameters"),
        ("adapter", "adapter"),
        ("optimizer", "optimizer"),
        ("parameter_dtype", "dtype of the parameters"),
        ("state_dtype", "dtype of the optimizer state"),
        ("neurons", "choice of neurons"),
    ):
        value = as_json(dataclasses.asdict(expected)[key])
        found = saved.get(key, as_json(defaults.get(key)))  # older checkpoints do not say
        if found != value:
            raise SeallmError(
                f"checkpoint {path} was trained with another {meaning}: {key} is {found}, this run has "
                f"{value}; go back to the old configuration, or remove {path.parent} to train again"
            )


def check_model(path: pathlib.Path, saved: Mapping[str, Any], expected: ModelConfig) -> None:
    """Raises SeallmError when a checkpoint holds a model of another shape."""
    saved = as_json(stored_model(saved))
    for key, value in as_json(dataclasses.asdict(expected)).items():
        if key not in ("padded_vocabulary_size", "initializer_range") and saved[key] != value:
            raise SeallmError(
                f"checkpoint {path} holds another model: {key} is {saved[key]}, this run has {value}; "
                f"use the configuration and tokenizer it was trained with, or remove {path.parent} to train again"
            )


def tokenizer_mismatch(path: pathlib.Path, saved: str, expected: str) -> str:
    """The message about a checkpoint of another tokenizer."""
    return (
        f"checkpoint {path} was trained with another tokenizer (digest {saved[:12]}, this run has {expected[:12]}); "
        f"use the tokenizer it was trained with, or remove {path.parent} to train again"
    )


def as_json(value: Any) -> Any:
    """`value` as it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(value))
