"""The forward kernel of attention on TPUs, in Pallas (FlashAttention-2, arXiv 2307.08691).

The grid walks a list of block pairs that is made from the documents of the very batch (`schedule.py`): the cost follows
the sum of their squared lengths, every row has its own bounds, and blocks within one document are not masked. In blocks
on the diagonal, tiles of keys leave out the queries before them. Values come transposed, which the projection before
can deliver for nothing. Shape letters are those of `tpu_scores.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.attention.schedule import FIRST, LAST
from seallm_jax.kernels.attention.tpu_scores import (
    MASKED,
    Places,
    Scores,
    by_mask,
    compiler_params,
    cost,
    dot,
    masked_scores,
    tiles,
)
from seallm_jax.kernels.attention.tpu_walk import Scalars, plan_walk


def tpu_forward(
    scores: Scores,
    q_BxHxTxD: jax.Array,
    k_BxKxSxD: jax.Array,
    v_BxKxSxD: jax.Array,
    start_BxT: jax.Array,
    slopes_H: jax.Array,
    places: Places,
    out_dtype: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Attention of queries to keys of the same row, and what the backward pass needs.

    Args:
      scores: what is static.
      q_BxHxTxD: queries.
      k_BxKxSxD: keys.
      v_BxKxSxD: values.
      start_BxT: int32, position of the first key that each query sees (`schedule.first_visible`).
      slopes_H: float32, ALiBi slopes; not read unless `scores.alibi`.
      places: where the queries and keys lie in their row.
      out_dtype: of the output; that of the queries by default.

    Returns:
      The output [B, H, T, D], and float32 [B, H, T], the logarithm to base 2 of the sum of the exponentials; 1e30 where
      a query sees nothing.
    """
    B, H, T, D = q_BxHxTxD.shape
    block = scores.sizes.forward
    walk = plan_walk(q_BxHxTxD, k_BxKxSxD, start_BxT, slopes_H, places, block, anchor=scores.anchor)
    query, key, turned_key, start, statistic = walk.blocks
    out, log_total_BxHx1xT = pl.pallas_call(
        functools.partial(_forward_kernel, scores, walk.packing),
        grid_spec=walk.grid_spec(
            in_specs=[query, key, turned_key, start],
            out_specs=[query, statistic],
            scratch_shapes=[
                pltpu.VMEM((D, block), jnp.float32),
                pltpu.VMEM((1, block), jnp.float32),
                pltpu.VMEM((1, block), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q_BxHxTxD.shape, out_dtype or q_BxHxTxD.dtype),
            jax.ShapeDtypeStruct((B, H, 1, T), jnp.float32),
        ],
        compiler_params=compiler_params(scores, len(walk.grid)),
        cost_estimate=cost(q_BxHxTxD, k_BxKxSxD, products=2),
        name="packed_attention_forward",
    )(*walk.scalars, q_BxHxTxD, k_BxKxSxD, v_BxKxSxD.swapaxes(2, 3), start_BxT[:, None])
    return out, log_total_BxHx1xT[:, :, 0]


def _forward_kernel(scores, packing, *refs):
    scalars, refs = Scalars(*refs[: len(Scalars._fields)]), refs[len(Scalars._fields) :]
    q_ref, k_ref, turned_v_ref, start_ref, out_ref, log_total_ref, sums_Dxt, maximum_1xt, total_1xt = refs
    n, block, tile = pl.program_id(1), scores.sizes.forward, scores.sizes.forward_tile
    _, i, j, flags = packing.read(scalars.steps, n)
    first_query, first_key, slope = (
        scalars.query_positions[i],
        scalars.key_positions[j],
        scalars.slopes[pl.program_id(0)],
    )

    @pl.when(flags & FIRST != 0)
    def _():
        sums_Dxt[...] = jnp.zeros_like(sums_Dxt)
        maximum_1xt[...] = jnp.full_like(maximum_1xt, MASKED)
        total_1xt[...] = jnp.zeros_like(total_1xt)

    def visit(causal: bool, bounded: bool):
        for keys, queries in tiles(block, tile, causal):
            scores_sxt = masked_scores(
                scores,
                q_ref[0, 0, queries],
                k_ref[0, 0, keys],
                slope,
                first_query + queries.start,
                first_key + keys.start,
                start_ref[0, :, queries] if bounded else None,
                causal,
            )[0]
            old_1xt = maximum_1xt[:, queries]
            new_1xt = jnp.maximum(old_1xt, scores_sxt.max(axis=0, keepdims=True))
            weights_sxt = jnp.exp2(scores_sxt - new_1xt)
            shrink_1xt = jnp.exp2(old_1xt - new_1xt)
            maximum_1xt[:, queries] = new_1xt
            total_1xt[:, queries] = shrink_1xt * total_1xt[:, queries] + weights_sxt.sum(axis=0, keepdims=True)
            added_Dxt = dot(turned_v_ref[0, 0, :, keys], weights_sxt.astype(turned_v_ref.dtype), (1, 0))
            sums_Dxt[:, queries] = shrink_1xt * sums_Dxt[:, queries] + added_Dxt

    by_mask(flags, visit)

    @pl.when(flags & LAST != 0)
    def _():
        some_1xt = maximum_1xt[...] > MASKED / 2
        total_1xt[...] = jnp.where(some_1xt, total_1xt[...], 1.0)
        out_Dxt = jnp.where(some_1xt, sums_Dxt[...] / total_1xt[...], 0.0)
        out_ref[0, 0] = out_Dxt.T.astype(out_ref.dtype)
        log_total_ref[0, 0] = jnp.where(some_1xt, maximum_1xt[...] + jnp.log2(total_1xt[...]), -MASKED)
