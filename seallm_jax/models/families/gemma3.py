"""Gemma 3, its text models (arXiv 2503.19786): as Gemma 2, with normalised heads of q and k instead of a soft cap on
attention, and a rotary embedding of their own for the local layers.
"""

from __future__ import annotations

from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig, RopeConfig
from seallm_jax.models.families import gemma2, rotary_family
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.rope import read_rope, write_rope
from seallm_jax.models.families.windows import read_windows


def _read(read: ConfigReader) -> ModelConfig:
    read.refuse_unless("attn_logit_softcapping", None)  # transformers ignores it
    read.refuse_unless("partial_rotary_factor", None, 1)
    pattern = read.whole("sliding_window_pattern")
    windows = read_windows(read, lambda layer: (layer + 1) % pattern != 0)
    return gemma2.read_sandwich(read, query_key_norm="head", **_read_ropes(read), **windows)


def _read_ropes(read: ConfigReader) -> dict[str, RopeConfig]:
    """transformers 4 scales the global layers only; transformers 5 has a dictionary for each type of layer."""
    sections = read.get("rope_parameters") or {}
    for key, value in sections.items():
        if key not in ("full_attention", "sliding_attention"):
            raise SeallmError(
                f"config.json: rope_parameters has {key} = {value!r}; supported are full_attention, sliding_attention"
            )
    everywhere = (sections.get("full_attention") or {}) | (read.get("rope_scaling") or {})
    local = sections.get("sliding_attention") or {}
    for parameters in (everywhere, local):
        ConfigReader(parameters, {}, where="config.json: rope_parameters").refuse_unless("truncate", True)  # ignored
    bases = {"rope": (everywhere, "rope_theta"), "local_rope": (local, "rope_local_base_freq")}
    return {
        attribute: read_rope(
            parameters,
            section="rope_parameters",
            theta=read.number(base),
            max_positions=read.whole("max_position_embeddings"),
        )
        for attribute, (parameters, base) in bases.items()
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    local = config.local_rope or config.rope
    written = gemma2.write_sandwich(config) | {
        "rope_local_base_freq": local.theta,
        "rope_parameters": {
            "full_attention": write_rope(config.rope, max_positions=config.max_positions),
            "sliding_attention": write_rope(local, max_positions=config.max_positions),
        },
    }
    pattern = _pattern(config)
    return written | ({"sliding_window_pattern": pattern} if pattern else {})


def _pattern(config: ModelConfig) -> int | None:
    """Every which layer is not local, if there is such a rule: the only way that early versions had."""
    local = config.local_layers or (False,) * config.num_layers
    rules = range(1, config.num_layers + 2)
    return next((n for n in rules if local == tuple((i + 1) % n != 0 for i in range(config.num_layers))), None)


GEMMA3 = Family(
    name="gemma3",
    architecture="Gemma3ForCausalLM",
    model_type="gemma3_text",
    defaults={
        **gemma2.DEFAULTS,
        "max_position_embeddings": 131072,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window_pattern": 6,
    },
    read=_read,
    write=_write,
    weights=rotary_family.rotary_weights,
)
