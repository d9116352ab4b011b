"""The files of a PEFT adapter, checked: every tensor has to be asked for, and to have the right shape."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.adapter_module import AdapterModule
from seallm_jax.interop.tensor_files import STORED_TYPES, TensorFiles

CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# keys of adapter_config.json that change what an adapter computes, and the values that are plain LoRA
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None, {}),
    "megatron_config": (None, {}),
    "kasa_config": (None, {}),
    "velora_config": (None, {}),
    "monteclora_config": (None, {}),
}
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class AdapterReader:
    """Hands out the tensors of an adapter.

    Attributes:
      directory: the folder.
      values: adapter_config.json.
      rank_stabilized: whether scales are alpha / sqrt(r).
    """

    def __init__(self, directory: pathlib.Path, config: ModelConfig):
        """Reads the headers.

        Raises:
          SeallmError: files that are missing or damaged, a pickle, or an adapter that is not plain LoRA.
        """
        self.directory = directory
        self.values = read_json(directory / CONFIG_FILE)
        if not isinstance(self.values, dict):
            raise SeallmError(f"{directory / CONFIG_FILE} is not an object")
        for key, allowed in PLAIN.items():
            if self.values.get(key) not in allowed:
                raise SeallmError(
                    f"{directory / CONFIG_FILE}: {key} is {self.values.get(key)!r}; only plain LoRA can be read, "
                    f"where it is {allowed[-1]!r}"
                )
        initial = str(self.values.get("init_lora_weights", True)).lower()
        if initial.startswith(CHANGE_THE_BASE):
            raise SeallmError(
                f"{directory / CONFIG_FILE}: init_lora_weights is {initial!r}, which changes the base, too; save "
                "the adapter again with PEFT's path_initial_model_for_weight_conversion"
            )
        self.rank_stabilized = bool(self.values.get("use_rslora"))
        self._config = config
        self._files = _AdapterFiles(directory)
        self._left = {name.removeprefix(PREFIX): name for name in self._files.tensors}

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
        """A tensor in float32, or None if there is none. Raises SeallmError unless it has `shape`."""
        if name not in self._left:
            return None
        stored = self._left.pop(name)
        info = self._files.tensors[stored]
        if info.dtype not in STORED_TYPES:
            raise SeallmError(f"tensor {stored} is {info.dtype}; only {', '.join(STORED_TYPES)} can be read")
        if shape is not None and info.shape != shape:
            raise SeallmError(
                f"tensor {stored} in {info.file} has shape {info.shape}; this model needs {shape}: the adapter belongs "
                "to another model, or the vocabulary has to be extended first"
            )
        return self._files.tensor(stored).astype(np.float32)

    def factors(self, module: AdapterModule, name: str) -> tuple[np.ndarray, np.ndarray, float] | None:
        """(A [r, in], B [out, r], scale) of one layer's module, or None if it has no adapter."""
        form = "{}.lora_embedding_{}" if module.is_embedding else "{}.lora_{}.weight"
        inputs, outputs = module.shape(self._config)
        a_rank_x_in = self.take(form.format(name, "A"))
        if a_rank_x_in is None:
            return None
        rank = a_rank_x_in.shape[0]
        if a_rank_x_in.shape != (rank, inputs):
            raise SeallmError(
                f"{form.format(name, 'A')} in {self.directory} has shape {a_rank_x_in.shape}; this model needs "
                f"{(rank, inputs)}: the adapter belongs to another model, or the vocabulary has to be extended first"
            )
        b_out_x_rank = self.take(form.format(name, "B"), (outputs, rank))
        if b_out_x_rank is None:
            raise SeallmError(f"{self.directory} has {form.format(name, 'A')} but no {form.format(name, 'B')}")
        alpha = _of_pattern(self.values.get("alpha_pattern"), name, self.values.get("lora_alpha", 8))
        return a_rank_x_in, b_out_x_rank, alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def new_rows(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(indices, rows) of a vocabulary matrix whose rows were trained in full, or None."""
        rows = self.take(f"{name}.token_adapter.trainable_tokens_delta")
        if rows is None:
            return None
        indices = self.values.get("trainable_token_indices") or []
        if isinstance(indices, dict):
            indices = _of_pattern(indices, name, [])
        size = self._config.vocabulary_size
        if rows.shape != (len(indices), self._config.hidden_size) or not all(0 <= index < size for index in indices):
            raise SeallmError(
                f"{self.directory}: {len(indices)} trainable_token_indices of {name} do not fit {rows.shape} rows and "
                f"a vocabulary of {size}; the adapter belongs to another model"
            )
        return np.asarray(indices), rows

    def whole(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The weight of a module in `modules_to_save`, or the one that PEFT saves beside an embedding's adapter."""
        saved = self.take(f"{name}.weight", shape)
        return self.take(f"{name}.base_layer.weight", shape) if saved is None else saved

    def finish(self) -> None:
        """Raises SeallmError for the first tensor that nobody asked for."""
        if self._left:
            raise SeallmError(
                f"{self.directory}: unexpected tensor {next(iter(self._left.values()))}; the adapter belongs to "
                "another model or adapts something that cannot be adapted here"
            )


class _AdapterFiles(TensorFiles):
    def _files(self) -> list[pathlib.Path]:
        if (self.directory / TENSORS_FILE).is_file():
            return [self.directory / TENSORS_FILE]
        if (self.directory / "adapter_model.bin").is_file():
            raise SeallmError(
                f"{self.directory} has only adapter_model.bin, a pickle, which can run code when it is read; load it "
                "with PEFT and save it again"
            )
        raise SeallmError(f"{self.directory} has no {TENSORS_FILE}; it is not the folder of an adapter")


def _of_pattern(patterns: dict[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as PEFT looks it up."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default
