"""AdamW and its learning-rate schedules, from optax."""

from __future__ import annotations

from typing import Any

import jax
import optax

from seallm_jax.core.schema import OptimizerConfig


def build_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate by update number (0 is the first update).

    Warmup rises linearly and its first update already has a positive rate. The rest follows `config.schedule`:
    constant; cosine or linear down to `final_fraction` of the peak; wsd (arXiv 2405.18392), stable and then a linear
    decay over the last `decay_fraction` of the steps.
    """
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    warmup = round(config.warmup_fraction * total_steps)
    rest = max(total_steps - warmup, 1)
    match config.schedule:
        case "constant":
            main = optax.constant_schedule(peak)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, rest, alpha=config.final_fraction)
        case "linear":
            main = optax.linear_schedule(peak, final, rest)
        case "wsd":
            decay = min(max(round(config.decay_fraction * total_steps), 1), rest)
            main = optax.linear_schedule(peak, final, decay, transition_begin=rest - decay)
    if warmup == 0:
        return main
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])


def build_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm (0 turns it off), then AdamW without weight decay on normalisation scales."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        build_schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    return optax.chain(clip, adamw)


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay acts on: all but those with "norm" in their path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in jax.tree_util.keystr(path).lower(), params)
