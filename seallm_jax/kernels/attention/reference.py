"""The oracle: attention written out in float32, all scores in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def reference_attention(
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
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`."""
    B, T, H, _ = q_BxTxHxD.shape
    S, K = k_BxSxKxD.shape[1:3]
    q32_BxTxHxD = q_BxTxHxD.astype(jnp.float32)
    k32_BxSxHxD, v32_BxSxHxD = (jnp.repeat(x.astype(jnp.float32), H // K, axis=2) for x in (k_BxSxKxD, v_BxSxKxD))

    t_BxT = jnp.arange(T)[None] if query_order_BxT is None else query_order_BxT
    s_BxS = jnp.arange(S)[None] if key_order_BxS is None else key_order_BxS
    distance_BxTxS = t_BxT[:, :, None] - s_BxS[:, None, :]
    same_BxTxS = query_segment_ids_BxT[:, :, None] == key_segment_ids_BxS[:, None, :]
    if window is not None:
        same_BxTxS &= distance_BxTxS < window
    if anchor:
        same_BxTxS |= jnp.arange(S) == 0
    visible_BxTxS = same_BxTxS & (query_segment_ids_BxT != 0)[:, :, None] & (key_segment_ids_BxS != 0)[:, None, :]
    if causal:
        visible_BxTxS &= distance_BxTxS >= 0
    visible_BxHxTxS = jnp.broadcast_to(visible_BxTxS[:, None], (B, H, T, S))

    scores_BxHxTxS = scale * jnp.einsum("bthd,bshd->bhts", q32_BxTxHxD, k32_BxSxHxD, precision="highest")
    if soft_cap:
        scores_BxHxTxS = soft_cap * jnp.tanh(scores_BxHxTxS / soft_cap)
    if alibi_slopes_H is not None:
        scores_BxHxTxS -= alibi_slopes_H[:, None, None] * distance_BxTxS[:, None]
    # A row without a visible key would be 0 / 0, also in the gradient; its scores are replaced before the softmax.
    some_BxHxTx1 = visible_BxHxTxS.any(axis=-1, keepdims=True)
    scores_BxHxTxS = jnp.where(some_BxHxTx1, jnp.where(visible_BxHxTxS, scores_BxHxTxS, -jnp.inf), 0.0)
    weights_BxHxTxS = jnp.where(some_BxHxTx1, jax.nn.softmax(scores_BxHxTxS, axis=-1), 0.0)
    out_BxTxHxD = jnp.einsum("bhts,bshd->bthd", weights_BxHxTxS, v32_BxSxHxD, precision="highest")
    return out_BxTxHxD.astype(q_BxTxHxD.dtype)
