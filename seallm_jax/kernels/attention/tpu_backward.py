"""The backward kernels of attention on TPUs, in Pallas (FlashAttention-2, arXiv 2307.08691).

They walk lists of block pairs as the forward kernel does. Keys also come transposed, which the projection before can
deliver for nothing. Shape letters are those of `tpu_scores.py`; G = H / K, n blocks of queries.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.attention.schedule import FIRST, INNER_FIRST, INNER_LAST, LAST, list_steps
from seallm_jax.kernels.attention.tpu_scores import (
    Places,
    Scores,
    by_mask,
    compiler_params,
    cost,
    dot,
    masked_scores,
    tiles,
)


def tpu_backward(
    scores: Scores,
    q_BxHxTxD: jax.Array,
    k_BxKxSxD: jax.Array,
    v_BxKxSxD: jax.Array,
    start_BxT: jax.Array,
    slopes_H: jax.Array,
    d_out_BxHxTxD: jax.Array,
    log_total_BxHxT: jax.Array,
    delta_BxHxT: jax.Array,
    places: Places,
    out_dtype: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, in `out_dtype` or their dtypes.

    One kernel does all while the gradients of a row's queries fit into vector memory, else the queries get one of
    their own, which computes the scores again.

    Args:
      d_out_BxHxTxD: cotangent of the output.
      log_total_BxHxT: second result of `tpu_forward` (over all keys of a query, if these here are a part of them).
      delta_BxHxT: float32, sum of cotangent times output.
      The others are those of `tpu_forward`.
    """
    D, T, G = q_BxHxTxD.shape[3], q_BxHxTxD.shape[2], q_BxHxTxD.shape[1] // k_BxKxSxD.shape[1]
    arguments = (q_BxHxTxD, k_BxKxSxD, v_BxKxSxD, start_BxT, slopes_H, d_out_BxHxTxD, log_total_BxHxT, delta_BxHxT)
    if 0.7 * scores.sizes.vmem_bytes >= 4 * G * T * D:
        return _key_major_backward(scores, *arguments, places, out_dtype, with_queries=True)
    dk, dv = _key_major_backward(scores, *arguments, places, out_dtype, with_queries=False)
    return _query_gradient(scores, *arguments, places, out_dtype), dk, dv


def _key_major_backward(
    scores, q, k, v, start, slopes, d_out, log_total, delta, places, out_dtype, *, with_queries: bool
):
    (_, H, T, D), (K, S) = q.shape, k.shape[1:3]
    G, block = H // K, scores.sizes.backward
    query_positions, key_positions = places.of_blocks(T, S, block)
    steps = list_steps(start, query_positions, key_positions, block, anchor=scores.anchor, key_major=True)

    def query(h, n, g, rows, outer, inner, *_):
        return rows[n], h * G + g, inner[n], 0

    def key(h, n, g, rows, outer, *_):
        return rows[n], h, outer[n], 0

    def turned_key(h, n, g, rows, outer, *_):
        return rows[n], h, 0, outer[n]

    def first(h, n, g, rows, outer, inner, *_):
        return rows[n], 0, inner[n]

    def statistic(h, n, g, rows, outer, inner, *_):
        return rows[n], h * G + g, 0, inner[n]

    key_blocks = [pl.BlockSpec((1, 1, block, D), key)] * 2
    whole = [pl.BlockSpec(memory_space=pl.ANY)]  # a block of queries is complete long after its first visit
    gradients = pl.pallas_call(
        functools.partial(_key_major_kernel, scores, with_queries),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=7,
            grid=(K, steps.total, G),
            in_specs=[
                pl.BlockSpec((1, 1, block, D), query),
                pl.BlockSpec((1, 1, block, D), key),
                pl.BlockSpec((1, 1, D, block), turned_key),
                pl.BlockSpec((1, 1, block, D), key),
                pl.BlockSpec((1, 1, block), first),
                pl.BlockSpec((1, 1, block, D), query),
                pl.BlockSpec((1, 1, 1, block), statistic),
                pl.BlockSpec((1, 1, 1, block), statistic),
            ],
            out_specs=key_blocks + whole * with_queries,
            scratch_shapes=[pltpu.VMEM((block, D), jnp.float32), pltpu.VMEM((block, D), jnp.float32)]
            + [
                pltpu.VMEM((G, T // block, D, block), jnp.float32),
                pltpu.VMEM((block, D), out_dtype or q.dtype),
                pltpu.SMEM((1,), jnp.int32),
                pltpu.SemaphoreType.DMA,
            ]
            * with_queries,
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, out_dtype or x.dtype) for x in (k, v, q)[: 2 + with_queries]],
        compiler_params=compiler_params(scores, 3),
        cost_estimate=cost(q, k, products=5 if with_queries else 4),
        name="packed_attention_backward",
    )(
        *steps[:4],
        query_positions,
        key_positions,
        slopes,
        q,
        k,
        k.swapaxes(2, 3),
        v,
        start[:, None],
        d_out,
        log_total[:, :, None],
        delta[:, :, None],
    )
    return (gradients[2], *gradients[:2]) if with_queries else tuple(gradients)


def _key_major_kernel(
    scores,
    with_queries,
    rows,
    outer,
    inner,
    flags,
    query_positions,
    key_positions,
    slopes,
    q_ref,
    k_ref,
    turned_k_ref,
    v_ref,
    start_ref,
    d_out_ref,
    log_total_ref,
    delta_ref,
    dk_ref,
    dv_ref,
    *rest,
):
    n, g, G = pl.program_id(1), pl.program_id(2), pl.num_programs(2)
    block, tile = scores.sizes.backward, scores.sizes.backward_tile
    head = pl.program_id(0) * G + g
    first_query, first_key = query_positions[inner[n]], key_positions[outer[n]]
    if with_queries:
        dq_ref, dk_sxD, dv_sxD, dq_GxnxDxt, staged_txD, is_staged, copied = rest
        # of the same size each time, so that waiting on this one waits on whichever was started last
        copy = pltpu.make_async_copy(staged_txD, dq_ref.at[rows[n], head, pl.ds(inner[n] * block, block)], copied)

        @pl.when((n == 0) & (g == 0))
        def _():
            is_staged[0] = 0

        @pl.when(flags[n] & INNER_FIRST != 0)
        def _():
            dq_GxnxDxt[g, inner[n]] = jnp.zeros(dq_GxnxDxt.shape[2:], jnp.float32)
    else:
        dk_sxD, dv_sxD = rest

    @pl.when((flags[n] & FIRST != 0) & (g == 0))
    def _():
        dk_sxD[...] = jnp.zeros_like(dk_sxD)
        dv_sxD[...] = jnp.zeros_like(dv_sxD)

    def visit(causal: bool, bounded: bool):
        for keys, queries in tiles(block, tile, causal):
            q_txD, d_out_txD = q_ref[0, 0, queries], d_out_ref[0, 0, queries]
            weights_sxt, d_scores_sxt = _gradient_of_scores(
                scores,
                q_txD,
                k_ref[0, 0, keys],
                v_ref[0, 0, keys],
                d_out_txD,
                log_total_ref[0, 0, :, queries],
                delta_ref[0, 0, :, queries],
                slopes[head],
                first_query + queries.start,
                first_key + keys.start,
                start_ref[0, :, queries] if bounded else None,
                causal,
            )
            dv_sxD[keys] += dot(weights_sxt, d_out_txD, (1, 0))
            dk_sxD[keys] += dot(d_scores_sxt, q_txD, (1, 0))
            if with_queries:
                dq_GxnxDxt[g, inner[n], :, queries] += dot(turned_k_ref[0, 0, :, keys], d_scores_sxt, (1, 0))

    by_mask(flags[n], visit)

    @pl.when((flags[n] & LAST != 0) & (g == G - 1))
    def _():
        dk_ref[0, 0] = (scores.scale * dk_sxD[...]).astype(dk_ref.dtype)
        dv_ref[0, 0] = dv_sxD[...].astype(dv_ref.dtype)

    if with_queries:

        @pl.when(flags[n] & INNER_LAST != 0)
        def _():
            pl.when(is_staged[0] == 1)(copy.wait)
            staged_txD[...] = (scores.scale * dq_GxnxDxt[g, inner[n]].T).astype(staged_txD.dtype)
            is_staged[0] = 1
            copy.start()

        @pl.when((n == pl.num_programs(1) - 1) & (g == G - 1))
        def _():
            copy.wait()


def _query_gradient(scores, q, k, v, start, slopes, d_out, log_total, delta, places, out_dtype):
    (_, H, T, D), (K, S) = q.shape, k.shape[1:3]
    block = scores.sizes.backward
    query_positions, key_positions = places.of_blocks(T, S, block)
    steps = list_steps(start, query_positions, key_positions, block, anchor=scores.anchor)

    def query(h, n, rows, outer, *_):
        return rows[n], h, outer[n], 0

    def key(h, n, rows, outer, inner, *_):
        return rows[n], h // (H // K), inner[n], 0

    def turned_key(h, n, rows, outer, inner, *_):
        return rows[n], h // (H // K), 0, inner[n]

    def first(h, n, rows, outer, *_):
        return rows[n], 0, outer[n]

    def statistic(h, n, rows, outer, *_):
        return rows[n], h, 0, outer[n]

    return pl.pallas_call(
        functools.partial(_query_gradient_kernel, scores),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=7,
            grid=(H, steps.total),
            in_specs=[
                pl.BlockSpec((1, 1, block, D), query),
                pl.BlockSpec((1, 1, block, D), key),
                pl.BlockSpec((1, 1, D, block), turned_key),
                pl.BlockSpec((1, 1, block, D), key),
                pl.BlockSpec((1, 1, block), first),
                pl.BlockSpec((1, 1, block, D), query),
                pl.BlockSpec((1, 1, 1, block), statistic),
                pl.BlockSpec((1, 1, 1, block), statistic),
            ],
            out_specs=pl.BlockSpec((1, 1, block, D), query),
            scratch_shapes=[pltpu.VMEM((D, block), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, out_dtype or q.dtype),
        compiler_params=compiler_params(scores, 2),
        cost_estimate=cost(q, k, products=3),
        name="packed_attention_backward_queries",
    )(
        *steps[:4],
        query_positions,
        key_positions,
        slopes,
        q,
        k,
        k.swapaxes(2, 3),
        v,
        start[:, None],
        d_out,
        log_total[:, :, None],
        delta[:, :, None],
    )


def _query_gradient_kernel(
    scores,
    rows,
    outer,
    inner,
    flags,
    query_positions,
    key_positions,
    slopes,
    q_ref,
    k_ref,
    turned_k_ref,
    v_ref,
    start_ref,
    d_out_ref,
    log_total_ref,
    delta_ref,
    dq_ref,
    dq_Dxt,
):
    n, block, tile = pl.program_id(1), scores.sizes.backward, scores.sizes.backward_tile
    first_query, first_key = query_positions[outer[n]], key_positions[inner[n]]
    slope = slopes[pl.program_id(0)]

    @pl.when(flags[n] & FIRST != 0)
    def _():
        dq_Dxt[...] = jnp.zeros_like(dq_Dxt)

    def visit(causal: bool, bounded: bool):
        for keys, queries in tiles(block, tile, causal):
            _, d_scores_sxt = _gradient_of_scores(
                scores,
                q_ref[0, 0, queries],
                k_ref[0, 0, keys],
                v_ref[0, 0, keys],
                d_out_ref[0, 0, queries],
                log_total_ref[0, 0, :, queries],
                delta_ref[0, 0, :, queries],
                slope,
                first_query + queries.start,
                first_key + keys.start,
                start_ref[0, :, queries] if bounded else None,
                causal,
            )
            dq_Dxt[:, queries] += dot(turned_k_ref[0, 0, :, keys], d_scores_sxt, (1, 0))

    by_mask(flags[n], visit)

    @pl.when(flags[n] & LAST != 0)
    def _():
        dq_ref[0, 0] = (scores.scale * dq_Dxt[...].T).astype(dq_ref.dtype)


def _gradient_of_scores(scores, q_txD, k_sxD, v_sxD, d_out_txD, log_total_1xt, delta_1xt, slope, *mask):
    """Weights and gradient of the scaled products, both in the dtype of the operands."""
    scores_sxt, slope_sxt = masked_scores(scores, q_txD, k_sxD, slope, *mask)
    weights_sxt = jnp.exp2(scores_sxt - log_total_1xt)
    d_scores_sxt = weights_sxt * (dot(v_sxD, d_out_txD, (1, 1)) - delta_1xt)
    if slope_sxt is not None:
        d_scores_sxt *= slope_sxt
    return weights_sxt.astype(q_txD.dtype), d_scores_sxt.astype(q_txD.dtype)
