"""Stochastic rounding: what is lost to a narrow dtype is kept on average."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def round_like(values: Any, like: Any, key: jax.Array) -> Any:
    """A tree of float32 arrays in the dtypes of `like`.

    bfloat16 keeps the upper half of a float32. The value is rounded up with the probability that its lower half stands
    for, else down, so that the mean is the value itself (arXiv 2010.06192). Of what is not finite, nothing changes.

    Args:
      values: float32 arrays.
      like: arrays in float32 or bfloat16, in the same structure.
      key: the result is a function of it and of the values, on any mesh.
    """
    leaves, structure = jax.tree.flatten(values)
    seeds = jax.tree.unflatten(structure, list(jax.random.bits(key, (len(leaves),), jnp.uint32)))

    def rounded(value: jax.Array, old: jax.Array, seed: jax.Array) -> jax.Array:
        if old.dtype != jnp.bfloat16:
            return value.astype(old.dtype)
        bits = jax.lax.bitcast_convert_type(value, jnp.uint32)
        upper = ((bits + (_noise(seed, value.shape) >> 16)) >> 16).astype(jnp.uint16)
        result = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
        return jnp.where(jnp.isfinite(value), result, value.astype(jnp.bfloat16))

    return jax.tree.map(rounded, values, like, seeds)


def _noise(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 of a shape: a hash of seed and place (the finalizer of MurmurHash3), cheap beside a real generator."""
    noise = seed.reshape((1,) * len(shape))
    for axis, size in enumerate(shape):
        place = jax.lax.broadcasted_iota(jnp.uint32, tuple(size if a == axis else 1 for a in range(len(shape))), axis)
        noise = noise + place + 1
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            noise = (noise ^ (noise >> shift)) * jnp.uint32(factor)
        noise = noise ^ (noise >> 16)
    return jnp.broadcast_to(noise, shape)
