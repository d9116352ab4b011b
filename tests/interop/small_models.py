"""Small models of every family, with random tensors, as folders."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
from seallm_jax.models.families.registry import family_of

VOCABULARY = 333  # no multiple of 128
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 56, "max_position_embeddings": 64}
HEADS = {"head_dim": 8}
LOCAL = {"sliding_window": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED | {"tie_word_embeddings": False, "attention_bias": True},
    "mistral": GROUPED | {"tie_word_embeddings": False, "sliding_window": None},
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | HEADS | {"tie_word_embeddings": True},
    "gemma": GROUPED | HEADS,
    "gemma2": GROUPED | HEADS | LOCAL,
    "gemma3_text": GROUPED | HEADS | LOCAL,
    "bloom": {},
    "olmo2": GROUPED | {"tie_word_embeddings": False},
}


def huggingface_config(model_type: str, **changes: Any) -> dict[str, Any]:
    """Values of a config.json, as transformers writes it."""
    from transformers import AutoConfig

    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = AutoConfig.for_model(model_type, **sizes | FAMILIES[model_type] | changes)
    return json.loads(config.to_json_string(use_diff=False)) | {"model_type": model_type}


def model_shape(values: dict[str, Any], *, tensor: int = 1) -> ModelConfig:
    """The shape that a config.json describes, padded."""
    config = family_of(values).config_from_huggingface(values)
    padded = Vocabulary.padded(config.vocabulary_size, tensor=tensor).padded_size
    return dataclasses.replace(config, padded_vocabulary_size=padded)


def write_folder(
    folder: pathlib.Path, values: dict[str, Any], *, dtype: Any = ml_dtypes.bfloat16, seed: int = 0
) -> dict[str, np.ndarray]:
    """Writes config.json and one file of random tensors. Returns them."""
    rng = np.random.default_rng(seed)
    tensors = {
        tensor.name: (0.2 * rng.standard_normal(tensor.shape, np.float32)).astype(dtype)
        for tensor in checkpoint_tensors(model_shape(values))
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values | {"dtype": np.dtype(dtype).name}))
    return tensors


def all_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What the safetensors files of a folder hold, by another reader than ours."""
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def same_bytes(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two folders' tensors are the same, bit for bit."""
    return first.keys() == second.keys() and all(
        array.dtype == second[name].dtype
        and array.shape == second[name].shape
        and array.tobytes() == second[name].tobytes()
        for name, array in first.items()
    )
