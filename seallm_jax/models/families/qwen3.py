"""Qwen 3, dense (arXiv 2505.09388): as Qwen 2, with normalised heads of q and k instead of biases."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import qwen2, rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family


def _read(read: ConfigReader) -> ModelConfig:
    return rotary_family.read_rotary(
        read,
        activation=read.choice("hidden_act", rotary_family.ACTIVATIONS),
        rope=rotary_family.read_shared_rope(read),
        query_key_norm="head",
        **rotary_family.read_biases(read),
        **qwen2.read_upper_windows(read),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    windows = qwen2.write_upper_windows(config)
    return rotary_family.write_rotary(config) | windows | {"attention_bias": config.output_bias}


QWEN3 = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    defaults=qwen2.DEFAULTS | {"head_dim": 128},
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
)
