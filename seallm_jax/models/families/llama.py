"""Llama 2, 3, 3.1 and 3.2, and the many models of their architecture (arXiv 2307.09288, 2407.21783)."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family


def _read(read: ConfigReader) -> ModelConfig:
    return rotary_family.read_rotary(
        read,
        activation=read.choice("hidden_act", rotary_family.ACTIVATIONS),
        rope=rotary_family.read_shared_rope(read),
        mlp_bias=read.flag("mlp_bias"),
        **rotary_family.read_biases(read),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return rotary_family.write_rotary(config) | {"attention_bias": config.output_bias, "mlp_bias": config.mlp_bias}


LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    model_type="llama",
    defaults=rotary_family.DEFAULTS | {"max_position_embeddings": 2048, "mlp_bias": False},
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
    redundant=rotary_family.REDUNDANT,
)
