"""One way to write each model shape."""

from __future__ import annotations

import dataclasses

from seallm_jax.core.schema import ModelConfig, RopeConfig
from seallm_jax.models.families.rope import USED


def canonical(config: ModelConfig) -> ModelConfig:
    """The same model, with whatever has no effect, or follows from the rest, at its default."""
    local = config.local_layers if any(config.local_layers) else ()
    rotary = config.positions == "rope"
    rope = _canonical_rope(config.rope, config.max_positions) if rotary else RopeConfig()
    local_rope = _canonical_rope(config.local_rope or config.rope, config.max_positions) if rotary and local else rope
    return dataclasses.replace(
        config,
        rope=rope,
        local_rope=None if local_rope == rope else local_rope,
        local_layers=local,
        sliding_window=config.sliding_window if local else 0,
        attention_scale=0.0 if config.attention_scale == config.head_size**-0.5 else config.attention_scale,
    )


def _canonical_rope(rope: RopeConfig, max_positions: int) -> RopeConfig:
    used = {attribute: getattr(rope, attribute) for attribute in USED[rope.type]}
    if used.get("original_positions") == max_positions:
        del used["original_positions"]
    return RopeConfig(type=rope.type, theta=rope.theta, **used)
