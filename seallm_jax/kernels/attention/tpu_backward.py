"""The backward kernels of attention on TPUs, in Pallas (FlashAttention-2, arXiv 2307.08691).

They walk lists of block pairs as the forward kernel does. Keys also come transposed, which the projection before can
deliver for nothing. Shape letters are those of `tpu_scores.py`; G = H / K, n blocks of queries.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.attention.schedule import FIRST, INNER_FIRST, INNER_LAST, LAST
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
from seallm_jax.kernels.attention.tpu_walk import plan_walk


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
        return _key_major_backward(scores, arguments, places, out_dtype, with_queries=True)
    dk, dv = _key_major_backward(scores, arguments, places, out_dtype, with_queries=False)
    return _query_gradient(scores, arguments, places, out_dtype), dk, dv


class _Inputs(NamedTuple):
    """The inputs of both kernels: `Scalars`, then tensors."""

    steps: Any
    query_positions: Any
    key_positions: Any
    slopes: Any
    q: Any
    k: Any
    turned_k: Any
    v: Any
    start: Any
    d_out: Any
    log_total: Any
    delta: Any


def _call(kernel, scores, walk, arguments, out_specs, scratch_shapes, out_shape, *, products, name):
    q, k, v, start, _, d_out, log_total, delta = arguments
    query, key, turned_key, first, statistic = walk.blocks
    in_specs = [query, key, turned_key, key, first, query, statistic, statistic]
    return pl.pallas_call(
        functools.partial(kernel, scores, walk.packing),
        grid_spec=walk.grid_spec(in_specs, out_specs, scratch_shapes),
        out_shape=out_shape,
        compiler_params=compiler_params(scores, len(walk.grid)),
        cost_estimate=cost(q, k, products=products),
        name=name,
    )(
        *walk.scalars,
        q,
        k,
        k.swapaxes(2, 3),
        v,
        start[:, None],
        d_out,
        log_total[:, :, None],
        delta[:, :, None],
    )


def _key_major_backward(scores, arguments, places, out_dtype, *, with_queries: bool):
    q, k, v, start, slopes = arguments[:5]
    (_, H, T, D), K, block = q.shape, k.shape[1], scores.sizes.backward
    walk = plan_walk(q, k, start, slopes, places, block, anchor=scores.anchor, key_major=True)
    whole = [pl.BlockSpec(memory_space=pl.ANY)]  # a block of queries is complete long after its first visit
    of_queries = [
        pltpu.VMEM((H // K, T // block, D, block), jnp.float32),
        pltpu.VMEM((block, D), out_dtype or q.dtype),
        pltpu.SMEM((1,), jnp.int32),
        pltpu.SemaphoreType.DMA,
    ]
    gradients = _call(
        functools.partial(_key_major_kernel, with_queries),
        scores,
        walk,
        arguments,
        out_specs=[walk.blocks.key] * 2 + whole * with_queries,
        scratch_shapes=[pltpu.VMEM((block, D), jnp.float32)] * 2 + of_queries * with_queries,
        out_shape=[jax.ShapeDtypeStruct(x.shape, out_dtype or x.dtype) for x in (k, v, q)[: 2 + with_queries]],
        products=5 if with_queries else 4,
        name="packed_attention_backward",
    )
    return (gradients[2], *gradients[:2]) if with_queries else tuple(gradients)


def _key_major_kernel(with_queries, scores, packing, *refs):
    inputs, refs = _Inputs(*refs[: len(_Inputs._fields)]), refs[len(_Inputs._fields) :]
    dk_ref, dv_ref, *rest = refs
    n, g, G = pl.program_id(1), pl.program_id(2), pl.num_programs(2)
    block, tile = scores.sizes.backward, scores.sizes.backward_tile
    head = pl.program_id(0) * G + g
    row, j, i, flags = packing.read(inputs.steps, n)
    place = head, inputs.query_positions[i], inputs.key_positions[j]
    if with_queries:
        dq_ref, dk_sxD, dv_sxD, dq_GxnxDxt, staged_txD, is_staged, copied = rest
        # of the same size each time, so that waiting on this one waits on whichever was started last
        copy = pltpu.make_async_copy(staged_txD, dq_ref.at[row, head, pl.ds(i * block, block)], copied)

        @pl.when((n == 0) & (g == 0))
        def _():
            is_staged[0] = 0

        @pl.when(flags & INNER_FIRST != 0)
        def _():
            dq_GxnxDxt[g, i] = jnp.zeros(dq_GxnxDxt.shape[2:], jnp.float32)
    else:
        dk_sxD, dv_sxD = rest

    @pl.when((flags & FIRST != 0) & (g == 0))
    def _():
        dk_sxD[...] = jnp.zeros_like(dk_sxD)
        dv_sxD[...] = jnp.zeros_like(dv_sxD)

    def visit(causal: bool, bounded: bool):
        for keys, queries in tiles(block, tile, causal):
            weights_sxt, d_scores_sxt = _gradient_of_scores(scores, inputs, place, keys, queries, causal, bounded)
            dv_sxD[keys] += dot(weights_sxt, inputs.d_out[0, 0, queries], (1, 0))
            dk_sxD[keys] += dot(d_scores_sxt, inputs.q[0, 0, queries], (1, 0))
            if with_queries:
                dq_GxnxDxt[g, i, :, queries] += dot(inputs.turned_k[0, 0, :, keys], d_scores_sxt, (1, 0))

    by_mask(flags, visit)

    @pl.when((flags & LAST != 0) & (g == G - 1))
    def _():
        dk_ref[0, 0] = (scores.scale * dk_sxD[...]).astype(dk_ref.dtype)
        dv_ref[0, 0] = dv_sxD[...].astype(dv_ref.dtype)

    if with_queries:

        @pl.when(flags & INNER_LAST != 0)
        def _():
            pl.when(is_staged[0] == 1)(copy.wait)
            staged_txD[...] = (scores.scale * dq_GxnxDxt[g, i].T).astype(staged_txD.dtype)
            is_staged[0] = 1
            copy.start()

        @pl.when((n == pl.num_programs(1) - 1) & (g == G - 1))
        def _():
            copy.wait()


def _query_gradient(scores, arguments, places, out_dtype):
    q, k, _, start, slopes = arguments[:5]
    D, block = q.shape[3], scores.sizes.backward
    walk = plan_walk(q, k, start, slopes, places, block, anchor=scores.anchor)
    return _call(
        _query_gradient_kernel,
        scores,
        walk,
        arguments,
        out_specs=walk.blocks.query,
        scratch_shapes=[pltpu.VMEM((D, block), jnp.float32)],
        out_shape=jax.ShapeDtypeStruct(q.shape, out_dtype or q.dtype),
        products=3,
        name="packed_attention_backward_queries",
    )


def _query_gradient_kernel(scores, packing, *refs):
    inputs, (dq_ref, dq_Dxt) = _Inputs(*refs[: len(_Inputs._fields)]), refs[len(_Inputs._fields) :]
    n, block, tile = pl.program_id(1), scores.sizes.backward, scores.sizes.backward_tile
    _, i, j, flags = packing.read(inputs.steps, n)
    place = pl.program_id(0), inputs.query_positions[i], inputs.key_positions[j]

    @pl.when(flags & FIRST != 0)
    def _():
        dq_Dxt[...] = jnp.zeros_like(dq_Dxt)

    def visit(causal: bool, bounded: bool):
        for keys, queries in tiles(block, tile, causal):
            _, d_scores_sxt = _gradient_of_scores(scores, inputs, place, keys, queries, causal, bounded)
            dq_Dxt[:, queries] += dot(inputs.turned_k[0, 0, :, keys], d_scores_sxt, (1, 0))

    by_mask(flags, visit)

    @pl.when(flags & LAST != 0)
    def _():
        dq_ref[0, 0] = (scores.scale * dq_Dxt[...].T).astype(dq_ref.dtype)


def _gradient_of_scores(scores, inputs, place, keys, queries, causal: bool, bounded: bool):
    """Weights and gradient of the scaled products of a tile, both in the dtype of the operands.

    Args:
      place: the query head, and the positions of the first query and of the first key of the blocks.
    """
    q_txD, k_sxD = inputs.q[0, 0, queries], inputs.k[0, 0, keys]
    head, first_query, first_key = place
    scores_sxt, slope_sxt = masked_scores(
        scores,
        q_txD,
        k_sxD,
        inputs.slopes[head],
        first_query + queries.start,
        first_key + keys.start,
        inputs.start[0, :, queries] if bounded else None,
        causal,
    )
    weights_sxt = jnp.exp2(scores_sxt - inputs.log_total[0, 0, :, queries])
    d_weights_sxt = dot(inputs.v[0, 0, keys], inputs.d_out[0, 0, queries], (1, 1))
    d_scores_sxt = weights_sxt * (d_weights_sxt - inputs.delta[0, 0, :, queries])
    if slope_sxt is not None:
        d_scores_sxt *= slope_sxt
    return weights_sxt.astype(q_txD.dtype), d_scores_sxt.astype(q_txD.dtype)
