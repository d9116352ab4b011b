"""Optimizers, from optax: what they have in common is clipping, weight decay, the rate, and how their state is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from seallm_jax.core.schema import OptimizerConfig
from seallm_jax.models.layout import path_name
from seallm_jax.training.partition import multiplier

MUON_RMS = 0.2  # of an update's entries, as AdamW's, so that both take the same rates (arXiv 2502.16982)
# The dimensions that a matrix within the layers reads and writes; dimension 0 is the layer. Muon orthogonalizes these.
MATRICES = {
    "attention.query.kernel": ((1,), (2, 3)),
    "attention.key.kernel": ((1,), (2, 3)),
    "attention.value.kernel": ((1,), (2, 3)),
    "attention.output.kernel": ((1, 2), (3,)),
    "mlp.gate.kernel": ((1,), (2,)),
    "mlp.up.kernel": ((1,), (2,)),
    "mlp.down.kernel": ((1,), (2,)),
}


def build_optimizer(config: OptimizerConfig, schedule: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Clipping by global norm (0 turns it off), the optimizer, weight decay and the rate.

    Norms and biases do not decay. Multipliers of the rate are left to `multiplied`. A parameter of all layers counts as
    one where Adafactor measures sizes.

    Args:
      config: which optimizer, and its numbers.
      schedule: learning rate by update number; see `training.schedule`.
    """
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.chain(
            _direction(config),
            optax.add_decayed_weights(config.weight_decay, decay_mask),
            optax.scale_by_learning_rate(schedule),
        ),
    )
    return _in_float32(optimizer, jnp.dtype(config.state_dtype))


def whole_update(
    optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any, healthy: jax.Array
) -> tuple[Any, Any]:
    """What `optimizer.update` returns, (updates, new state); the state stays as it is where `healthy` is false."""
    updates, new = optimizer.update(gradient, state, params)
    return updates, jax.tree.map(lambda new, old: jnp.where(healthy, new, old), new, state)


def multiplied(updates: Any, multipliers: Mapping[str, float]) -> Any:
    """Updates times the learning-rate multipliers; weight decay is scaled, too, as it would be by the rate."""

    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * multiplier(path_name(path), multipliers, update.shape)

    return jax.tree_util.tree_map_with_path(scale, updates) if multipliers else updates


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay acts on: neither norms ("norm" in their path) nor biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _decays(path_name(path)), params)


def map_moments(
    change: Callable[[Any, Any], Any], state: Any, params: Any, *, other: Callable[[Any], Any] = lambda leaf: leaf
) -> Any:
    """Applies `change(leaf, parameter)` to what an optimizer keeps for each parameter, and `other` to the rest.

    What belongs to a parameter is known by its path, which ends with the parameter's.
    """
    by_path = {_keys(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    longest = max(map(len, by_path), default=0)

    def apply(path: tuple[Any, ...], leaf: Any) -> Any:
        keys = _keys(path)
        for length in range(min(longest, len(keys)), 0, -1):
            if (parameter := by_path.get(keys[-length:])) is not None:
                return change(leaf, parameter)
        return other(leaf)

    return jax.tree_util.tree_map_with_path(apply, state)


def _direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer's update, upwards, before weight decay and the rate."""
    match config.name:
        case "adamw":
            return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)
        case "adafactor":
            return optax.chain(
                optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()
            )
        case "lion":
            return optax.scale_by_lion(b1=config.b1, b2=config.b2)
        case "muon":
            return optax.contrib.muon(
                -1.0,  # upwards
                beta=config.momentum,
                eps=config.epsilon,
                adam_b1=config.b1,
                adam_b2=config.b2,
                muon_weight_dimension_numbers=_muon_dimensions,
                consistent_rms=MUON_RMS,
            )


def _muon_dimensions(params: Any) -> Any:
    def dimensions(path: tuple[Any, ...], _: Any) -> MuonDimensionNumbers | None:
        found = next((axes for name, axes in MATRICES.items() if path_name(path).endswith("." + name)), None)
        return None if found is None else MuonDimensionNumbers(reduction_axis=found[0], output_axis=found[1])

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _in_float32(optimizer: optax.GradientTransformation, kept: Any) -> optax.GradientTransformation:
    """The same, computing in float32 whatever the dtype of the parameters, with its moments kept in dtype `kept`."""

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def keep(state: Any, params: Any) -> Any:
        return map_moments(lambda leaf, _: leaf.astype(kept), state, params)

    def init(params: Any) -> Any:
        return keep(optimizer.init(wide(params)), params)

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        state = map_moments(lambda leaf, _: leaf.astype(jnp.float32), state, params)
        updates, state = optimizer.update(wide(updates), state, wide(params))
        return updates, keep(state, params)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def _keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(path_name(path).split("."))


def _decays(path: str) -> bool:
    return "norm" not in path and not path.endswith("bias")
