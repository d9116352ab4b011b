"""OLMo 2 (arXiv 2501.00656): norms on the outputs of attention and MLP, and on all heads of q, and of k, together."""

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
        norm_placement="post",
        query_key_norm="projection",
        **rotary_family.read_biases(read),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return rotary_family.write_rotary(config) | {"attention_bias": config.output_bias}


OLMO2 = Family(
    name="olmo2",
    architecture="Olmo2ForCausalLM",
    model_type="olmo2",
    defaults={**rotary_family.DEFAULTS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
)
