"""Gemma 1 (arXiv 2403.08295): scaled embeddings, norms whose scale is stored as its difference from one."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family

# What all Gemmas leave out of a config.json alike.
DEFAULTS: dict[str, Any] = {
    **rotary_family.DEFAULTS,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def read_gemma(read: ConfigReader, **switches: Any) -> ModelConfig:
    """The shape of a model of any generation."""
    biases = rotary_family.read_biases(read)
    scale = read.whole("hidden_size") ** 0.5
    return rotary_family.read_rotary(read, norm="rms_one", embedding_scale=scale, **biases, **switches)


def write_gemma(config: ModelConfig) -> dict[str, Any]:
    """The keys that `read_gemma` reads."""
    activation = {"hidden_activation": rotary_family.write_activation(config)}
    return rotary_family.write_rotary(config) | activation | {"attention_bias": config.output_bias}


def _read(read: ConfigReader) -> ModelConfig:
    # The first release said gelu, and meant its tanh approximation, as all programs take it.
    activation = read.choice("hidden_act", {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu_tanh"})
    read.refuse_unless("hidden_activation", None, "gelu_pytorch_tanh")
    return read_gemma(read, activation=activation, rope=rotary_family.read_shared_rope(read))


GEMMA = Family(
    name="gemma",
    architecture="GemmaForCausalLM",
    model_type="gemma",
    defaults=DEFAULTS | {"hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 16},
    read=_read,
    write=write_gemma,
    weights=rotary_family.rotary_weights,
)
