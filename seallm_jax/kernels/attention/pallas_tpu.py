"""Causal self-attention of packed rows on TPUs: the kernels with their gradient, on a mesh."""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from seallm_jax.core.sharding import MeshAxes, ShardingRules, extent
from seallm_jax.kernels.attention.block_sizes import BlockSizes, choose_block_sizes, padded_length
from seallm_jax.kernels.attention.residuals import name_residuals
from seallm_jax.kernels.attention.ring import ring_attention
from seallm_jax.kernels.attention.schedule import first_visible, most_pairs
from seallm_jax.kernels.attention.tpu_backward import tpu_backward
from seallm_jax.kernels.attention.tpu_forward import tpu_forward
from seallm_jax.kernels.attention.tpu_scores import Places, Scores
from seallm_jax.kernels.selection import device_of

ContextParallelism = Literal["all_gather", "ring"]
_MOST_STEPS = 2**18 - 2**14  # of a list, 4 bytes each, in a scalar memory of 1 MiB


def pallas_tpu_attention(
    q_BxTxHxD: jax.Array,
    k_BxTxKxD: jax.Array,
    v_BxTxKxD: jax.Array,
    segment_ids_BxT: jax.Array,
    *,
    window: int | jax.Array | None,
    anchor: bool,
    soft_cap: float,
    alibi_slopes_H: jax.Array | None,
    scale: float,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    context_parallelism: ContextParallelism = "all_gather",
    document_length: int = 0,
    sizes: BlockSizes | None = None,
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`, which asks `obstacle_to_pallas` first.

    On a mesh each device does its rows, heads and positions.

    Args:
      sizes: of the blocks, instead of those that the device's table gives.
    """
    T, H = q_BxTxHxD.shape[1:3]
    slopes_H = jnp.zeros(H, jnp.float32) if alibi_slopes_H is None else alibi_slopes_H
    split = _Split.of(q_BxTxHxD, mesh, rules, context_parallelism)
    rows, positions, heads, shards, ring = split
    run, sizes = (T // shards, sizes) if sizes else split.blocks(q_BxTxHxD, mesh, document_length)
    scores = Scores(scale, soft_cap, alibi_slopes_H is not None, anchor, sizes)
    more = max(run - T, 0)
    start_BxT = first_visible(jnp.pad(segment_ids_BxT, ((0, 0), (0, more))), window)

    def local(q, k, v, start, slopes):
        q, k, v = (jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))
        if ring:
            out = ring_attention(scores, positions, shards, q, k, v, start, slopes)
        else:
            first = jax.lax.axis_index(positions) * run if shards > 1 else 0
            places = Places(jnp.asarray(first, jnp.int32)[None], jnp.zeros(1, jnp.int32))
            out = _attend(scores, q, k, v, start, slopes, places)
        return out.swapaxes(1, 2)[:, :T]

    if mesh is None:
        return local(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, start_BxT, slopes_H)
    # each device needs the key/value heads that its query heads read
    head_shards = extent(mesh, heads)
    repeats = head_shards // math.gcd(head_shards, k_BxTxKxD.shape[2])
    if repeats > 1:
        k_BxTxKxD, v_BxTxKxD = (jnp.repeat(x, repeats, axis=2) for x in (k_BxTxKxD, v_BxTxKxD))
    queries, keys = PartitionSpec(rows, positions, heads), PartitionSpec(rows, positions if ring else None, heads)
    specs = (queries, keys, keys, PartitionSpec(rows, positions), PartitionSpec(heads))
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=queries, check_vma=False)
    return sharded(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, start_BxT, slopes_H)


def obstacle_to_pallas(
    q_BxTxHxD: jax.Array,
    mesh: jax.sharding.Mesh | None,
    rules: ShardingRules,
    context_parallelism: ContextParallelism,
    document_length: int,
) -> str | None:
    """Why the kernels cannot serve the self-attention of these queries; None when they can."""
    (B, T), split = q_BxTxHxD.shape[:2], _Split.of(q_BxTxHxD, mesh, rules, context_parallelism)
    pieces = split.shards * (2 if split.ring else 1)
    if T % (128 * pieces):
        if pieces == 1:
            return f"a row has {T:,} positions, which is no multiple of 128"
        way = "two for each in a ring" if split.ring else "one for each"
        return f"{split.shards} devices share rows of {T:,} positions, {way}, in pieces that are no multiples of 128"
    run, sizes = split.blocks(q_BxTxHxD, mesh, document_length)
    queries = (2 if split.ring else 1) * run // sizes.backward
    keys = queries if split.ring or split.shards == 1 else T // sizes.backward
    local_rows = B // (1 if mesh is None else extent(mesh, split.rows))
    steps = local_rows * most_pairs(queries, keys, same=split.shards == 1)
    if steps > _MOST_STEPS:
        return f"{local_rows} rows of {T:,} positions in blocks of {sizes.backward} make lists of {steps:,} steps"
    return None


class _Split(NamedTuple):
    """How devices share the queries.

    Attributes:
      rows: mesh axes that split them.
      positions: mesh axes that split each row.
      heads: mesh axes that split the heads.
      shards: parts of a row.
      ring: whether keys pass around a ring, for which each device takes two pieces of a row.
    """

    rows: MeshAxes
    positions: MeshAxes
    heads: MeshAxes
    shards: int
    ring: bool

    @classmethod
    def of(cls, q_BxTxHxD, mesh, rules, context_parallelism) -> _Split:
        if mesh is None:
            return cls(None, None, None, 1, False)
        rows, positions, heads = rules.sharding(mesh, "batch", "sequence", "heads", shape=q_BxTxHxD.shape[:3]).spec
        shards = extent(mesh, positions)
        return cls(rows, positions, heads, shards, shards > 1 and context_parallelism == "ring")

    def blocks(self, q_BxTxHxD, mesh, document_length: int) -> tuple[int, BlockSizes]:
        """Positions of a row that lie together, filled up where that pays, and the sizes of their blocks."""
        _, T, _, D = q_BxTxHxD.shape
        run = padded_length(T) if self.shards == 1 else T // self.shards // (2 if self.ring else 1)
        kind = device_of(mesh).device_kind
        return run, choose_block_sizes(kind, run, D, q_BxTxHxD.dtype.itemsize, document_length)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scores, q_BxHxTxD, k_BxKxSxD, v_BxKxSxD, start_BxT, slopes_H, places):
    return tpu_forward(scores, q_BxHxTxD, k_BxKxSxD, v_BxKxSxD, start_BxT, slopes_H, places)[0]


def _attend_forward(scores, *arguments):
    out_BxHxTxD, log_total_BxHxT = name_residuals(*tpu_forward(scores, *arguments))
    return out_BxHxTxD, (arguments, out_BxHxTxD, log_total_BxHxT)


def _attend_backward(scores, residuals, d_out_BxHxTxD):
    (*arguments, places), out_BxHxTxD, log_total_BxHxT = residuals
    delta_BxHxT = jnp.sum(d_out_BxHxTxD.astype(jnp.float32) * out_BxHxTxD.astype(jnp.float32), axis=-1)
    dq, dk, dv = tpu_backward(scores, *arguments, d_out_BxHxTxD, log_total_BxHxT, delta_BxHxT, places)
    return dq, dk, dv, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)
