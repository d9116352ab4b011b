"""Causal self-attention of packed rows on TPUs: the kernels with their gradient, on a mesh."""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.attention.block_sizes import BlockSizes, choose_block_sizes
from seallm_jax.kernels.attention.ring import ring_attention
from seallm_jax.kernels.attention.schedule import first_visible
from seallm_jax.kernels.attention.tpu_backward import tpu_backward
from seallm_jax.kernels.attention.tpu_forward import tpu_forward
from seallm_jax.kernels.attention.tpu_scores import Places, Scores


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
    context_parallelism: Literal["all_gather", "ring"] = "all_gather",
    document_length: int = 0,
    sizes: BlockSizes | None = None,
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`.

    On a mesh each device does its rows, heads and positions.

    Args:
      sizes: of the blocks, instead of those that the device's table gives.
    """
    B, T, H, D = q_BxTxHxD.shape
    slopes_H = jnp.zeros(H, jnp.float32) if alibi_slopes_H is None else alibi_slopes_H
    start_BxT = first_visible(segment_ids_BxT, window)
    rows = positions = heads = None
    if mesh is not None:
        rows, positions, heads = rules.sharding(mesh, "batch", "sequence", "heads", shape=(B, T, H)).spec
    shards = 1 if positions is None or mesh is None else mesh.shape[positions]
    ring = shards > 1 and context_parallelism == "ring"
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    run = T // shards // (2 if ring else 1)  # positions that lie together
    if run % 128:
        raise SeallmError(f"rows of {T} positions over {shards} devices leave pieces of {run}, no multiple of 128")
    sizes = sizes or choose_block_sizes(device.device_kind, run, D, q_BxTxHxD.dtype.itemsize, document_length)
    scores = Scores(scale, soft_cap, alibi_slopes_H is not None, anchor, sizes)

    def local(q, k, v, start, slopes):
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        if ring:
            out = ring_attention(scores, positions, shards, q, k, v, start, slopes)
        else:
            first = jax.lax.axis_index(positions) * run if shards > 1 else 0
            places = Places(jnp.asarray(first, jnp.int32)[None], jnp.zeros(1, jnp.int32))
            out = _attend(scores, q, k, v, start, slopes, places)
        return out.swapaxes(1, 2)

    if mesh is None:
        return local(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, start_BxT, slopes_H)
    # each device needs the key/value heads that its query heads read
    head_shards = math.prod(mesh.shape[axis] for axis in ((heads,) if isinstance(heads, str) else heads or ()))
    repeats = head_shards // math.gcd(head_shards, k_BxTxKxD.shape[2])
    if repeats > 1:
        k_BxTxKxD, v_BxTxKxD = (jnp.repeat(x, repeats, axis=2) for x in (k_BxTxKxD, v_BxTxKxD))
    queries, keys = PartitionSpec(rows, positions, heads), PartitionSpec(rows, positions if ring else None, heads)
    specs = (queries, keys, keys, PartitionSpec(rows, positions), PartitionSpec(heads))
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=queries, check_vma=False)
    return sharded(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, start_BxT, slopes_H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scores, q_BxHxTxD, k_BxKxSxD, v_BxKxSxD, start_BxT, slopes_H, places):
    return tpu_forward(scores, q_BxHxTxD, k_BxKxSxD, v_BxKxSxD, start_BxT, slopes_H, places)[0]


def _attend_forward(scores, *arguments):
    out_BxHxTxD, log_total_BxHxT = tpu_forward(scores, *arguments)
    return out_BxHxTxD, (arguments, out_BxHxTxD, log_total_BxHxT)


def _attend_backward(scores, residuals, d_out_BxHxTxD):
    (*arguments, places), out_BxHxTxD, log_total_BxHxT = residuals
    delta_BxHxT = jnp.sum(d_out_BxHxTxD.astype(jnp.float32) * out_BxHxTxD.astype(jnp.float32), axis=-1)
    dq, dk, dv = tpu_backward(scores, *arguments, d_out_BxHxTxD, log_total_BxHxT, delta_BxHxT, places)
    return dq, dk, dv, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)
