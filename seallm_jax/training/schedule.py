"""Learning-rate schedules, from optax."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import optax

from seallm_jax.core.schema import OptimizerConfig, StageConfig


def build_schedule(
    config: OptimizerConfig, total_steps: int, stages: Sequence[StageConfig] = (), starts: Sequence[int] = (0,)
) -> optax.Schedule:
    """Learning rate by update number (0 is the first update).

    Warmup rises linearly and its first update already has a positive rate. The rest follows `config.schedule`:
    constant; cosine or linear down to `final_fraction` of the peak; wsd (arXiv 2405.18392), stable and then a linear
    decay over the last `decay_fraction` of the steps.

    Args:
      config: the peak, the shape, and whether every stage has the shape anew.
      total_steps: steps in all.
      stages: of the curriculum; a stage may have a peak of its own.
      starts: the update that each stage begins with.
    """
    peaks = [stage.learning_rate or config.learning_rate for stage in stages] or [config.learning_rate]
    if len(starts) != len(peaks):
        raise ValueError(f"{len(starts)} beginnings of {len(peaks)} stages")
    if not config.rewarmup:
        factors = jnp.array([peak / config.learning_rate for peak in peaks], jnp.float32)
        whole = _shape(config, total_steps, config.learning_rate)
        if len(set(peaks)) == 1:
            return whole if peaks[0] == config.learning_rate else lambda update: whole(update) * factors[0]
        return lambda update: whole(update) * factors[jnp.searchsorted(jnp.array(starts), update, side="right") - 1]
    parts: list[optax.Schedule] = []
    rate = 0.0
    for (start, stop), peak in zip(itertools.pairwise([*starts, total_steps]), peaks, strict=True):
        parts.append(_shape(config, stop - start, peak, rate))
        rate = float(parts[-1](max(stop - start - 1, 0)))
    return optax.join_schedules(parts, list(starts[1:]))


def _shape(config: OptimizerConfig, steps: int, peak: float, floor: float = 0.0) -> optax.Schedule:
    """One run of the schedule, which warms up from `floor`."""
    final = peak * config.final_fraction
    warmup = round(config.warmup_fraction * steps)
    rest = max(steps - warmup, 1)
    match config.schedule:
        case "constant":
            main = optax.constant_schedule(peak)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, rest, alpha=config.final_fraction)
        case "linear":
            main = optax.linear_schedule(peak, final, rest)
        case "wsd":
            decay = min(max(round(config.decay_fraction * steps), 1), rest)
            main = optax.linear_schedule(peak, final, decay, transition_begin=rest - decay)
    if warmup == 0:
        return main
    rise = optax.linear_schedule(floor + (peak - floor) / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])
