"""The update of parameters whose moments lie in the host's memory: a layer at a time is on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from seallm_jax.models.layout import path_name
from seallm_jax.training import partition
from seallm_jax.training.optimizer import map_moments

LAYERS = ("layers.*",)  # parameters with a leading axis of layers


def streamed_update(
    optimizer: optax.GradientTransformation,
    gradient: Any,
    state: Any,
    params: Any,
    healthy: jax.Array,
    *,
    clip_norm: float,
) -> tuple[Any, Any]:
    """What `optimizer.update` returns, for an optimizer that treats each layer by itself: all but clipping do.

    The loop over layers is what bounds the memory: of copies that do not wait for one another, the compiler makes all
    at once. Moments of layers never leave the host but for their turn, and are written back in place.

    Args:
      optimizer: one that does not clip.
      gradient: float32; its memory becomes that of the updates.
      state: the optimizer's, with moments in the host's memory.
      params: the parameters, frozen ones left out.
      healthy: bool scalar; the state stays as it is where false.
      clip_norm: gradients whose norm is larger are scaled down to it; 0 turns it off.

    Returns:
      (updates, new state), as `optimizer.update` does.
    """
    if clip_norm:
        gradient, _ = optax.clip_by_global_norm(clip_norm).update(gradient, optax.EmptyState())
    (layers, rest), (layers_gradient, rest_gradient) = (partition.split(tree, LAYERS) for tree in (params, gradient))
    rest_state = jax.device_put(_state_of(optimizer, rest, state), jax.memory.Space.Device)
    rest_updates, new_rest_state = _select(
        healthy, optimizer.update(rest_gradient, rest_state, rest), (rest_gradient, rest_state)
    )
    layers_updates, layers_state = _by_layer(
        optimizer, layers_gradient, _state_of(optimizer, layers, state), layers, healthy
    )
    found = {**_by_path(layers_state), **_by_path(new_rest_state)}  # step counters are in both, changed in the latter
    new_state = jax.tree_util.tree_map_with_path(lambda path, _: found[path_name(path)], state)
    return partition.merge(layers_updates, rest_updates), new_state


def _by_layer(
    optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any, healthy: jax.Array
) -> tuple[Any, Any]:
    """(updates, state with new moments and old counters)."""
    if not jax.tree.leaves(params):
        return gradient, state

    is_moment = map_moments(lambda leaf, _: True, state, params, other=lambda leaf: False)

    def turn(layer: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        gradient, state = carry

        def at(array: jax.Array) -> jax.Array:
            return jax.lax.dynamic_index_in_dim(array, layer, keepdims=True)

        def write(array: jax.Array, value: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_index_in_dim(array, value, layer, 0)

        old = map_moments(lambda moment, _: jax.device_put(at(moment), jax.memory.Space.Device), state, params)
        # The barriers keep what is read of an array apart from what is written to it, which would else take a copy.
        arguments = jax.lax.optimization_barrier((jax.tree.map(at, gradient), old, jax.tree.map(at, params)))
        results = optimizer.update(*arguments)
        updates, new = jax.lax.optimization_barrier(_select(healthy, results, arguments[:2]))
        new = jax.device_put(new, jax.memory.Space.Host)
        state = jax.tree.map(lambda moment, old, new: write(old, new) if moment else old, is_moment, state, new)
        return jax.tree.map(write, gradient, updates), state

    number = jax.tree.leaves(params)[0].shape[0]
    return jax.lax.fori_loop(0, number, turn, (gradient, state))


def _select(healthy: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(healthy, new, old), new, old)


def _state_of(optimizer: optax.GradientTransformation, part: Any, state: Any) -> Any:
    """The leaves of a state that belong to a part of the parameters, in the structure that they alone would have."""
    leaves = _by_path(state)
    own = jax.eval_shape(optimizer.init, part)
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[path_name(path)], own)


def _by_path(tree: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
