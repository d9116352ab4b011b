"""Causal self-attention of rows that are split over devices: keys and values pass around a ring (arXiv 2310.01889).

Each device works on two pieces of a row, i from the front and i from the back, so that all have the same work at every
step of the ring (zig-zag, as in arXiv 2311.09431). The pieces change places on the way in and on the way out; outside,
positions stay in their order.

Everything here runs within `shard_map`, over one mesh axis of n devices. Shape letters are those of `tpu_scores.py`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from seallm_jax.kernels.attention.residuals import name_residuals
from seallm_jax.kernels.attention.tpu_backward import tpu_backward
from seallm_jax.kernels.attention.tpu_forward import tpu_forward
from seallm_jax.kernels.attention.tpu_scores import MASKED, Places, Scores


def ring_attention(
    scores: Scores,
    axis: str,
    n: int,
    q_BxHxTxD: jax.Array,
    k_BxKxTxD: jax.Array,
    v_BxKxTxD: jax.Array,
    start_BxT: jax.Array,
    slopes_H: jax.Array,
) -> jax.Array:
    """Attention of this device's positions to the whole row.

    Args:
      scores: what is static.
      axis: mesh axis that splits the positions, in order.
      n: devices on it. Half of a device's positions must be a multiple of the blocks.
      q_BxHxTxD: queries of this device.
      k_BxKxTxD: its keys.
      v_BxKxTxD: its values.
      start_BxT: int32, first position that each of its queries sees, counted from the beginning of the row.
      slopes_H: float32, ALiBi slopes; not read unless `scores.alibi`.

    Returns:
      [B, H, T, D] in the dtype of the queries.
    """
    enter = functools.partial(_to_zigzag, axis=axis, n=n)
    q, k, v = (enter(x, dimension=2) for x in (q_BxHxTxD, k_BxKxTxD, v_BxKxTxD))
    out = _ring(scores, axis, n, q, k, v, enter(start_BxT, dimension=1), slopes_H)
    return _from_zigzag(out, axis=axis, n=n, dimension=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _ring(scores, axis, n, q, k, v, start, slopes):
    return _ring_forward(scores, axis, n, q, k, v, start, slopes)[0]


def _ring_forward(scores, axis, n, q, k, v, start, slopes):
    me = jax.lax.axis_index(axis)
    piece = q.shape[2] // 2

    def turn(step, carry):
        out, log_total, k, v = carry
        places = Places(_runs(me, n, piece), _runs((me - step) % n, n, piece))
        part, log_part = tpu_forward(scores, q, k, v, start, slopes, places, jnp.float32)
        log_part = jnp.where(log_part == -MASKED, MASKED, log_part)  # nothing seen
        log_sum = jnp.logaddexp2(log_total, log_part)
        out = out * jnp.exp2(log_total - log_sum)[..., None] + part * jnp.exp2(log_part - log_sum)[..., None]
        return out, log_sum, _pass_on(k, axis, n), _pass_on(v, axis, n)

    carry = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:3], MASKED), k, v
    out, log_total, k, v = jax.lax.fori_loop(0, n, turn, carry)  # after n turns keys and values are home
    log_total = jnp.where(log_total <= MASKED / 2, -MASKED, log_total)
    out, log_total = name_residuals(out.astype(q.dtype), log_total)
    return out, (q, k, v, start, slopes, out, log_total)


def _ring_backward(scores, axis, n, residuals, d_out):
    q, k, v, start, slopes, out, log_total = residuals
    me = jax.lax.axis_index(axis)
    piece = q.shape[2] // 2
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)

    def turn(step, carry):
        dq, k, v, dk, dv = carry
        places = Places(_runs(me, n, piece), _runs((me - step) % n, n, piece))
        parts = tpu_backward(scores, q, k, v, start, slopes, d_out, log_total, delta, places, jnp.float32)
        # the gradients travel with their keys and values
        travelling = (k, v, dk + parts[1], dv + parts[2])
        return dq + parts[0], *(_pass_on(x, axis, n) for x in travelling)

    zeros = (jnp.zeros(x.shape, jnp.float32) for x in (k, v))
    dq, _, _, dk, dv = jax.lax.fori_loop(0, n, turn, (jnp.zeros(q.shape, jnp.float32), k, v, *zeros))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_ring.defvjp(_ring_forward, _ring_backward)


def _runs(device, n: int, piece: int) -> jax.Array:
    """Positions of the two pieces that a device works on."""
    return jnp.stack([device, 2 * n - 1 - device]).astype(jnp.int32) * piece


def _pass_on(x: jax.Array, axis: str, n: int) -> jax.Array:
    return jax.lax.ppermute(x, axis, [(device, (device + 1) % n) for device in range(n)])


def _worker(piece: int, n: int) -> int:
    """The device that works on a piece of the row, of which there are 2n."""
    return min(piece, 2 * n - 1 - piece)


def _to_zigzag(x: jax.Array, *, axis: str, n: int, dimension: int) -> jax.Array:
    """From pieces 2i and 2i + 1 on device i to pieces i and 2n - 1 - i."""
    even, odd = jnp.split(x, 2, dimension)
    even = jax.lax.ppermute(even, axis, [(device, _worker(2 * device, n)) for device in range(n)])
    odd = jax.lax.ppermute(odd, axis, [(device, _worker(2 * device + 1, n)) for device in range(n)])
    # piece i has the parity of i, piece 2n - 1 - i the other one
    is_even = jax.lax.axis_index(axis) % 2 == 0
    return jnp.concatenate([jnp.where(is_even, even, odd), jnp.where(is_even, odd, even)], dimension)


def _from_zigzag(x: jax.Array, *, axis: str, n: int, dimension: int) -> jax.Array:
    """The inverse of `_to_zigzag`."""
    front, back = jnp.split(x, 2, dimension)
    is_even = jax.lax.axis_index(axis) % 2 == 0
    even, odd = jnp.where(is_even, front, back), jnp.where(is_even, back, front)
    even = jax.lax.ppermute(even, axis, [(_worker(2 * device, n), device) for device in range(n)])
    odd = jax.lax.ppermute(odd, axis, [(_worker(2 * device + 1, n), device) for device in range(n)])
    return jnp.concatenate([even, odd], dimension)
