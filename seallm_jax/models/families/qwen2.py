"""Qwen 1.5, 2 and 2.5 (arXiv 2407.10671, 2412.15115): biases on q, k and v; windows in the upper layers, if at all."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families import rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.windows import read_windows, write_windows

DEFAULTS: dict[str, Any] = {
    **rotary_family.DEFAULTS,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def read_upper_windows(read: ConfigReader) -> dict[str, Any]:
    """Windows from layer `max_window_layers` on, where `use_sliding_window` is set."""
    used = read.flag("use_sliding_window") and read.get("sliding_window") is not None
    windows = read_windows(read, lambda layer: used and layer >= read.whole("max_window_layers", least=0))
    if any(windows["local_layers"]) and not used:
        raise SeallmError("config.json: use_sliding_window is False, but layer_types has sliding_attention")
    return windows


def write_upper_windows(config: ModelConfig) -> dict[str, Any]:
    """The keys that `read_upper_windows` reads."""
    local = config.local_layers
    return write_windows(config) | {
        "max_window_layers": local.index(True) if any(local) else config.num_layers,
        "use_sliding_window": any(local),
    }


def _read(read: ConfigReader) -> ModelConfig:
    return rotary_family.read_rotary(
        read,
        activation=read.choice("hidden_act", rotary_family.ACTIVATIONS),
        rope=rotary_family.read_shared_rope(read),
        query_key_value_bias=True,
        **read_upper_windows(read),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return rotary_family.write_rotary(config) | write_upper_windows(config)


QWEN2 = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    model_type="qwen2",
    defaults=DEFAULTS,
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
    redundant=rotary_family.REDUNDANT,
)
