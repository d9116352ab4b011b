"""Mistral 7B and Nemo (arXiv 2310.06825): the window, if there is one, is in every layer."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.windows import read_windows


def _read(read: ConfigReader) -> ModelConfig:
    local = read.get("sliding_window") is not None
    # transformers ignores layer_types here, other programs do not
    kind = "sliding_attention" if local else "full_attention"
    read.refuse_unless("layer_types", None, [kind] * read.whole("num_hidden_layers"))
    return rotary_family.read_rotary(
        read,
        activation=read.choice("hidden_act", rotary_family.ACTIVATIONS),
        rope=rotary_family.read_shared_rope(read),
        **read_windows(read, lambda layer: local),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return rotary_family.write_rotary(config) | {"sliding_window": config.sliding_window or None}


MISTRAL = Family(
    name="mistral",
    architecture="MistralForCausalLM",
    model_type="mistral",
    defaults={
        **rotary_family.DEFAULTS,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
    redundant=rotary_family.REDUNDANT,
)
