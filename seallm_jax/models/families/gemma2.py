"""Gemma 2 (arXiv 2408.00118): norms around attention and MLP, every other layer local, soft caps."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import gemma, rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.windows import read_windows, write_windows

DEFAULTS: dict[str, Any] = {
    **gemma.DEFAULTS,
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}


def read_sandwich(read: ConfigReader, **switches: Any) -> ModelConfig:
    """The shape of a model of the second or third generation."""
    return gemma.read_gemma(
        read,
        activation=read.choice("hidden_activation", rotary_family.ACTIVATIONS),
        norm_placement="sandwich",
        attention_scale=read.whole("query_pre_attn_scalar") ** -0.5,
        logit_soft_cap=read_soft_cap(read, "final_logit_softcapping"),
        **switches,
    )


def write_sandwich(config: ModelConfig) -> dict[str, Any]:
    """The keys that `read_sandwich` reads, and those of the windows."""
    scalar = (config.attention_scale or config.head_size**-0.5) ** -2
    return {
        **gemma.write_gemma(config),
        **write_windows(config),
        "attn_logit_softcapping": config.attention_soft_cap or None,
        "final_logit_softcapping": config.logit_soft_cap or None,
        "query_pre_attn_scalar": round(scalar),  # transformers takes whole numbers only
    }


def read_soft_cap(read: ConfigReader, key: str) -> float:
    """A soft cap; null is none."""
    if read.get(key) is None:
        return 0.0
    cap = read.number(key)
    if cap <= 0:
        raise SeallmError(f"config.json: {key} is {cap!r}; it must be positive, or null for none")
    return cap


def _read(read: ConfigReader) -> ModelConfig:
    return read_sandwich(
        read,
        rope=rotary_family.read_shared_rope(read),
        attention_soft_cap=read_soft_cap(read, "attn_logit_softcapping"),
        **read_windows(read, lambda layer: layer % 2 == 0),
    )


GEMMA2 = Family(
    name="gemma2",
    architecture="Gemma2ForCausalLM",
    model_type="gemma2",
    defaults=DEFAULTS | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    read=_read,
    write=write_sandwich,
    weights=rotary_family.rotary_weights,
)
