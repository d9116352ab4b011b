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
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`."""
    B, T, H, _ = q_BxTxHxD.shape
    S, K = k_BxSxKxD.shape[1:3]
    q32_BxTxHxD = q_BxTxHxD.astype(jnp.float32)
    k32_BxSxHxD, v32_BxSxHxD = (jnp.repeat(x.astype(jnp.float32), H // K, axis=2) for x in (k_BxSxKxD, v_BxSxKxD))

    visible_BxTxS = query_segment_ids_BxT[:, :, None] == key_segment_ids_BxS[:, None, :]
    visible_BxTxS &= (query_segment_ids_BxT != 0)[:, :, None]
    if causal:
        t_BxT = jnp.arange(T)[None] if query_order_BxT is None else query_order_BxT
        s_BxS = jnp.arange(S)[None] if key_order_BxS is None else key_order_BxS
        visible_BxTxS &= t_BxT[:, :, None] >= s_BxS[:, None, :]
    visible_BxHxTxS = jnp.broadcast_to(visible_BxTxS[:, None], (B, H, T, S))

    scores_BxHxTxS = scale * jnp.einsum("bthd,bshd->bhts", q32_BxTxHxD, k32_BxSxHxD, precision="highest")
    # A row without a visible key would be 0 / 0, also in the gradient; its scores are replaced before the softmax.
    some_BxHxTx1 = visible_BxHxTxS.any(axis=-1, keepdims=True)
    scores_BxHxTxS = jnp.where(some_BxHxTx1, jnp.where(visible_BxHxTxS, scores_BxHxTxS, -jnp.inf), 0.0)
    weights_BxHxTxS = jnp.where(some_BxHxTx1, jax.nn.softmax(scores_BxHxTxS, axis=-1), 0.0)
    out_BxTxHxD = jnp.einsum("bhts,bshd->bthd", weights_BxHxTxS, v32_BxSxHxD, precision="highest")
    return out_BxTxHxD.astype(q_BxTxHxD.dtype)
