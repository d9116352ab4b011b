"""Sums and counts, from which the training step forms means once, over all rows, micro-batches and devices."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
    """What an objective returns; two of them add.

    Attributes:
      loss: float32 scalar, sum of the losses; the only differentiable part.
      count: float32 scalar, what to divide `loss` by: weighted tokens, or preference pairs.
      by_language: {"loss": [L], "count": [L]} float32, the same by language id. An objective of tokens may add "bytes".
      metrics: name -> (sum, count), float32 scalars.
    """

    loss: jax.Array
    count: jax.Array
    by_language: dict[str, jax.Array]
    metrics: dict[str, tuple[jax.Array, jax.Array]]

    def __add__(self, other: LossSums) -> LossSums:
        return jax.tree.map(jnp.add, self, other)


def sum_by_index(values: jax.Array, indices: jax.Array, size: int) -> jax.Array:
    """float32 [size]: sum of `values` at each index; indices outside 0..size-1 count nowhere.

    A masked reduction: unlike a scatter it fuses, and needs no exchange between devices but the final sum.
    """
    hits = indices[..., None] == jnp.arange(size)
    return jnp.sum(jnp.where(hits, values[..., None], 0.0), axis=tuple(range(values.ndim)))


def sum_by_segment(values_BxT: jax.Array, segment_ids_BxT: jax.Array, num_segments: int) -> jax.Array:
    """float32 [B, S]: sum of `values` over segment s + 1 of each row; padding and later segments count nowhere."""
    inside_BxTxS = segment_ids_BxT[..., None] == 1 + jnp.arange(num_segments)
    return jnp.sum(jnp.where(inside_BxTxS, values_BxT[..., None].astype(jnp.float32), 0.0), axis=1)
