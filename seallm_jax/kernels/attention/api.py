"""The attention operator: signature, shapes and choice of implementation.

Shape letters: B rows, T queries, S keys, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seallm_jax.kernels.attention.chunked_xla import chunked_xla_attention
from seallm_jax.kernels.attention.reference import reference_attention
from seallm_jax.kernels.selection import select_implementation

IMPLEMENTATIONS = {"reference": reference_attention, "chunked_xla": chunked_xla_attention}


def attention(
    q_BxTxHxD: jax.Array,
    k_BxSxKxD: jax.Array,
    v_BxSxKxD: jax.Array,
    *,
    query_segment_ids_BxT: jax.Array,
    key_segment_ids_BxS: jax.Array,
    query_order_BxT: jax.Array | None = None,
    key_order_BxS: jax.Array | None = None,
    causal: bool = True,
    scale: float | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """Softmax attention in which a query sees the keys of its own segment, and when causal none that come later.

    Args:
      q_BxTxHxD: queries, float32 or bfloat16; query head h reads key/value head h // (H / K).
      k_BxSxKxD: keys, dtype of the queries.
      v_BxSxKxD: values, dtype of the queries.
      query_segment_ids_BxT: int32; segment 0 is padding, sees nothing and yields zeros.
      key_segment_ids_BxS: int32; segment 0 is padding and is seen by nobody.
      query_order_BxT: int32 [B or 1, T], rank of each query in its row for the causal rule; its index by default,
        which also serves rows of several documents.
      key_order_BxS: int32 [B or 1, S], rank of each key.
      causal: whether a query sees only keys of its own rank or below.
      scale: factor of the scores; 1 / sqrt(D) by default.
      implementation: auto, reference or chunked_xla.

    Returns:
      [B, T, H, D] in the dtype of the queries. Scores, softmax and sums are float32; rows without a visible key are 0.

    Raises:
      ValueError: shapes that do not belong together.
      SeallmError: an implementation that does not exist.
    """
    B, T, H, D = q_BxTxHxD.shape
    S, K = k_BxSxKxD.shape[1:3]
    if k_BxSxKxD.shape != (B, S, K, D) or v_BxSxKxD.shape != (B, S, K, D) or H % K:
        raise ValueError(f"attention of q {q_BxTxHxD.shape}, k {k_BxSxKxD.shape} and v {v_BxSxKxD.shape}")
    if query_segment_ids_BxT.shape != (B, T) or key_segment_ids_BxS.shape != (B, S):
        raise ValueError(
            f"segment ids {query_segment_ids_BxT.shape} and {key_segment_ids_BxS.shape} for {B} rows, {T} queries and "
            f"{S} keys"
        )
    if (query_order_BxT is None) != (key_order_BxS is None):
        raise ValueError("give the order of both queries and keys, or of neither")
    if causal and query_order_BxT is None and T != S:
        raise ValueError(f"causal attention of {T} queries to {S} keys needs their order")
    chosen = select_implementation("attention", implementation, IMPLEMENTATIONS, default="chunked_xla")
    return IMPLEMENTATIONS[chosen](
        q_BxTxHxD,
        k_BxSxKxD,
        v_BxSxKxD,
        query_segment_ids_BxT.astype(jnp.int32),
        key_segment_ids_BxS.astype(jnp.int32),
        query_order_BxT,
        key_order_BxS,
        causal=causal,
        scale=D**-0.5 if scale is None else scale,
    )
