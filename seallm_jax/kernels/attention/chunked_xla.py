"""Blockwise attention in plain XLA, for any backend (FlashAttention-2, arXiv 2307.08691).

The row is cut into blocks, and one `lax.scan` walks the pairs of a query block and a key block that the causal rule
and the window allow, with an online softmax. Only one block of scores lives at a time, forward and backward: the
backward pass recomputes them from the saved log-sum-exp. Row and head dimensions stay intact, so they can be sharded.

Shape letters: B rows, T queries, S keys, H query heads, K key/value heads, G = H / K, D head size.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.kernels.attention.residuals import name_residuals
from seallm_jax.kernels.precision import matmul_precision

BLOCK = 512
SMALLEST_BLOCK = 64
CACHE_BYTES = 1 << 20  # of a processor core, for one block of scores
MASKED = -1e30  # finite, so that the difference of two masked scores is not NaN


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is static: block sizes and the pairs to visit."""

    query_block: int
    key_block: int
    pairs: tuple[tuple[int, int], ...]  # (query block, key block), all key blocks of one query block in a row
    causal: bool
    prune: bool  # leave out pairs beyond a window that only the run knows
    anchor: bool
    soft_cap: float
    scale: float


class _Rows(NamedTuple):
    """What a score depends on besides queries and keys; nothing here is differentiated."""

    query_segments: jax.Array  # [B, T]
    key_segments: jax.Array  # [B, S]
    query_order: jax.Array  # [B or 1, T]
    key_order: jax.Array  # [B or 1, S]
    window: jax.Array | None  # int32 scalar
    slopes: jax.Array | None  # [K, G, 1, 1]


def chunked_xla_attention(
    q_BxTxHxD: jax.Array,
    k_BxSxKxD: jax.Array,
    v_BxSxKxD: jax.Array,
    query_segment_ids_BxT: jax.Array,
    key_segment_ids_BxS: jax.Array,
    query_order_BxT: jax.Array | None,
    key_order_BxS: jax.Array | None,
    *,
    causal: bool,
    scale: float,
    window: int | jax.Array | None = None,
    anchor: bool = False,
    soft_cap: float = 0.0,
    alibi_slopes_H: jax.Array | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`; `block` bounds the queries and keys of one block of scores."""
    B, T, H, D = q_BxTxHxD.shape
    S, K = k_BxSxKxD.shape[1:3]
    by_index = query_order_BxT is None
    if query_order_BxT is None or key_order_BxS is None:
        query_order_BxT = jnp.arange(T, dtype=jnp.int32)[None]
        key_order_BxS = jnp.arange(S, dtype=jnp.int32)[None]

    query_block, key_block = min(block, T), min(block, S)
    reach = window if isinstance(window, int) else None
    pairs = tuple(
        (i, j)
        for i in range(-(-T // query_block))
        for j in range(-(-S // key_block))
        if not (causal and by_index and j * key_block >= (i + 1) * query_block)
        and (not by_index or reach is None or (anchor and j == 0) or i * query_block - (j + 1) * key_block + 1 < reach)
    )
    plan = _Plan(query_block, key_block, pairs, causal, by_index and reach is None, anchor, soft_cap, scale)

    pad_T, pad_S = functools.partial(_pad, multiple=query_block), functools.partial(_pad, multiple=key_block)
    q_BxKxGxTxD = pad_T(q_BxTxHxD).reshape(B, -1, K, H // K, D).transpose(0, 2, 3, 1, 4)
    k_BxKxSxD, v_BxKxSxD = (pad_S(x).transpose(0, 2, 1, 3) for x in (k_BxSxKxD, v_BxSxKxD))
    rows = _Rows(
        pad_T(query_segment_ids_BxT),
        pad_S(key_segment_ids_BxS),
        pad_T(query_order_BxT.astype(jnp.int32)),
        pad_S(key_order_BxS.astype(jnp.int32)),
        None if window is None else jnp.asarray(window, jnp.int32),
        None if alibi_slopes_H is None else alibi_slopes_H.reshape(K, H // K, 1, 1),
    )
    out_BxKxGxTxD = _attend(plan, q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows)
    return out_BxKxGxTxD.transpose(0, 3, 1, 2, 4).reshape(B, -1, H, D)[:, :T]


def block_in_cache(rows_and_heads: int) -> int:
    """The largest power of two whose blocks of scores, of all rows and heads, stay in the cache of a processor core."""
    block = BLOCK
    while block > SMALLEST_BLOCK and 4 * rows_and_heads * block**2 > CACHE_BYTES:
        block //= 2
    return block


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows):
    return _attend_forward(plan, q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows)[0]


def _attend_forward(plan, q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows):
    dot = functools.partial(_dot, precision=matmul_precision(q_BxKxGxTxD.dtype))

    def visit(carry, pair):
        sums, maxima, totals = carry  # of the values, of the scores, of the exponentials: for all queries so far
        i, j = pair[0] * plan.query_block, pair[1] * plan.key_block
        q, k, v = (
            _slice(q_BxKxGxTxD, i, plan.query_block),
            _slice(k_BxKxSxD, j, plan.key_block),
            _slice(v_BxKxSxD, j, plan.key_block),
        )
        visible = _visible(plan, rows, i, j)
        scores = jnp.where(visible, _scores(plan, rows, dot("bkgtd,bksd->bkgts", q, k), i, j)[0], MASKED)

        old_maximum = _slice(maxima, i, plan.query_block)
        maximum = jnp.maximum(old_maximum, scores.max(axis=-1, keepdims=True))
        weights = jnp.where(visible, jnp.exp(scores - maximum), 0.0)
        shrink = jnp.exp(old_maximum - maximum)
        total = shrink * _slice(totals, i, plan.query_block) + weights.sum(axis=-1, keepdims=True)
        added = dot("bkgts,bksd->bkgtd", weights.astype(v.dtype), v)
        sums = _update(sums, shrink * _slice(sums, i, plan.query_block) + added, i)
        return (sums, _update(maxima, maximum, i), _update(totals, total, i)), None

    column = (*q_BxKxGxTxD.shape[:-1], 1)
    carry = jnp.zeros(q_BxKxGxTxD.shape, jnp.float32), jnp.full(column, MASKED), jnp.zeros(column)
    sums, maxima, totals = _scan(visit, carry, plan, rows)
    some = totals > 0
    out_BxKxGxTxD = (sums / jnp.where(some, totals, 1.0)).astype(q_BxKxGxTxD.dtype)
    logsumexp_BxKxGxTx1 = jnp.where(some, maxima + jnp.log(jnp.where(some, totals, 1.0)), 0.0)
    out_BxKxGxTxD, logsumexp_BxKxGxTx1 = name_residuals(out_BxKxGxTxD, logsumexp_BxKxGxTx1)
    return out_BxKxGxTxD, (q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows, out_BxKxGxTxD, logsumexp_BxKxGxTx1)


def _attend_backward(plan, residuals, d_out_BxKxGxTxD):
    q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD, rows, out_BxKxGxTxD, logsumexp_BxKxGxTx1 = residuals
    dtype = q_BxKxGxTxD.dtype
    dot = functools.partial(_dot, precision=matmul_precision(dtype))
    delta_BxKxGxTx1 = jnp.sum(
        d_out_BxKxGxTxD.astype(jnp.float32) * out_BxKxGxTxD.astype(jnp.float32), axis=-1, keepdims=True
    )

    def visit(carry, pair):
        dq_all, dk_all, dv_all = carry
        i, j = pair[0] * plan.query_block, pair[1] * plan.key_block
        q, d_out, logsumexp, delta = (
            _slice(x, i, plan.query_block) for x in (q_BxKxGxTxD, d_out_BxKxGxTxD, logsumexp_BxKxGxTx1, delta_BxKxGxTx1)
        )
        k, v = _slice(k_BxKxSxD, j, plan.key_block), _slice(v_BxKxSxD, j, plan.key_block)
        scores, slope = _scores(plan, rows, dot("bkgtd,bksd->bkgts", q, k), i, j)
        weights = jnp.where(_visible(plan, rows, i, j), jnp.exp(scores - logsumexp), 0.0)
        d_weights = dot("bkgtd,bksd->bkgts", d_out, v)
        d_scores = (slope * weights * (d_weights - delta)).astype(dtype)

        dq = dot("bkgts,bksd->bkgtd", d_scores, k)
        dk = dot("bkgts,bkgtd->bksd", d_scores, q)
        dv = dot("bkgts,bkgtd->bksd", weights.astype(dtype), d_out)
        return (_add(dq_all, dq, i), _add(dk_all, dk, j), _add(dv_all, dv, j)), None

    carry = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q_BxKxGxTxD, k_BxKxSxD, v_BxKxSxD))
    dq, dk, dv = _scan(visit, carry, plan, rows)
    return dq.astype(dtype), dk.astype(dtype), dv.astype(dtype), None


_attend.defvjp(_attend_forward, _attend_backward)


def _scores(plan: _Plan, rows: _Rows, products: jax.Array, i, j) -> tuple[jax.Array, jax.Array | float]:
    """Scores of a block from its products of queries and keys, and the derivative of a score by its product."""
    slope: jax.Array | float = plan.scale
    scores = plan.scale * products
    if plan.soft_cap:
        bounded = jnp.tanh(scores / plan.soft_cap)
        scores, slope = plan.soft_cap * bounded, plan.scale * (1 - bounded**2)
    if rows.slopes is not None:
        scores -= rows.slopes * _distance(plan, rows, i, j)[:, None, None]
    return scores, slope


def _visible(plan: _Plan, rows: _Rows, i, j) -> jax.Array:
    """bool [B, 1, 1, query block, key block]."""
    t = _slice(rows.query_segments, i, plan.query_block, axis=1)
    s = _slice(rows.key_segments, j, plan.key_block, axis=1)
    visible = (t[:, :, None] == s[:, None, :]) & (t != 0)[:, :, None]
    if plan.causal:
        t_order = _slice(rows.query_order, i, plan.query_block, axis=1)
        s_order = _slice(rows.key_order, j, plan.key_block, axis=1)
        earlier = t_order[:, :, None] >= s_order[:, None, :]
        visible &= earlier
    if rows.window is not None:
        visible &= _distance(plan, rows, i, j) < rows.window
    if plan.anchor:
        anchor = ((j + jnp.arange(plan.key_block) == 0) & (s != 0))[:, None, :] & (t != 0)[:, :, None]
        visible |= anchor & earlier if plan.causal else anchor
    return visible[:, None, None]


def _distance(plan: _Plan, rows: _Rows, i, j) -> jax.Array:
    """int32 [B or 1, query block, key block], from a key forward to a query."""
    t = _slice(rows.query_order, i, plan.query_block, axis=1)
    return t[:, :, None] - _slice(rows.key_order, j, plan.key_block, axis=1)[:, None, :]


def _scan(visit, carry, plan: _Plan, rows: _Rows):
    if len(plan.pairs) == 1:  # short rows: no loop, and all slices are the whole array
        return visit(carry, plan.pairs[0])[0]
    pairs = jnp.asarray(np.array(plan.pairs, np.int32))
    if rows.window is None or not plan.prune:
        return jax.lax.scan(visit, carry, pairs)[0]
    # A window known only when the program runs: pairs that it reaches come first, and the loop ends after them.
    i, j = pairs.T
    near = i * plan.query_block - (j + 1) * plan.key_block + 1 < rows.window
    if plan.anchor:
        near |= j == 0
    pairs = pairs[jnp.argsort(~near, stable=True)]
    return jax.lax.fori_loop(0, near.sum(), lambda n, carry: visit(carry, pairs[n])[0], carry)


def _dot(equation: str, a: jax.Array, b: jax.Array, *, precision) -> jax.Array:
    return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=jnp.float32)


def _slice(x: jax.Array, start, size: int, axis: int = -2) -> jax.Array:
    return x if x.shape[axis] == size else jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _update(x: jax.Array, block: jax.Array, start) -> jax.Array:
    return block if x.shape == block.shape else jax.lax.dynamic_update_slice_in_dim(x, block, start, axis=-2)


def _add(x: jax.Array, block: jax.Array, start) -> jax.Array:
    return _update(x, _slice(x, start, block.shape[-2]) + block, start)


def _pad(x: jax.Array, multiple: int) -> jax.Array:
    """Pads axis 1 with zeros to a multiple; segment 0 hides what is added."""
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % multiple)] + [(0, 0)] * (x.ndim - 2))
