"""AdamW and its learning-rate schedules, from optax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax

from seallm_jax.core.schema import OptimizerConfig
from seallm_jax.models.layout import path_name
from seallm_jax.training.partition import multiplier


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
    """Clipping by global norm (0 turns it off), then AdamW, then the learning-rate multipliers.

    Norms and biases do not decay. A multiplier scales the decay, too, as it would had it been in the learning rate.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        build_schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if not config.multipliers:
        return optax.chain(clip, adamw)
    return optax.chain(clip, adamw, _scale_by_path(config.multipliers))


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay acts on: neither norms ("norm" in their path) nor biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _decays(path_name(path)), params)


def _decays(path: str) -> bool:
    return "norm" not in path and not path.endswith("bias")


def _scale_by_path(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * multiplier(path_name(path), multipliers)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))
