"""The attention operator: signature, shapes and choice of implementation.

Shape letters: B rows, T queries, S keys, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.attention.chunked_xla import BLOCK, block_in_cache, chunked_xla_attention
from seallm_jax.kernels.attention.cudnn import cudnn_attention, obstacle_to_cudnn
from seallm_jax.kernels.attention.pallas_tpu import ContextParallelism, obstacle_to_pallas, pallas_tpu_attention
from seallm_jax.kernels.attention.reference import reference_attention
from seallm_jax.kernels.selection import device_of, select_implementation

IMPLEMENTATIONS = ("reference", "chunked_xla", "pallas_tpu", "cudnn")


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
    window: int | jax.Array | None = None,
    anchor: bool = False,
    soft_cap: float = 0.0,
    alibi_slopes_H: jax.Array | None = None,
    scale: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    context_parallelism: ContextParallelism = "all_gather",
    document_length: int = 0,
    implementation: str = "auto",
) -> jax.Array:
    """Softmax attention in which a query sees the keys of its own segment, and when causal none that come later.

    A score is soft_cap(scale * q.k) + slope * (key order - query order), each part only where asked for.

    Args:
      q_BxTxHxD: queries, float32 or bfloat16; query head h reads key/value head h // (H / K).
      k_BxSxKxD: keys, dtype of the queries.
      v_BxSxKxD: values, dtype of the queries.
      query_segment_ids_BxT: int32; segment 0 is padding, sees nothing and yields zeros.
      key_segment_ids_BxS: int32; segment 0 is padding and is seen by nobody.
      query_order_BxT: int32 [B or 1, T], rank of each query in its row or document, which the causal rule, the window
        and ALiBi go by; its index by default, which also serves rows of several documents. Keys in a cache with gaps
        need the positions within the document.
      key_order_BxS: int32 [B or 1, S], rank of each key.
      causal: whether a query sees only keys of its own rank or below.
      window: a query sees keys with query order - key order < window, itself included (causal only). None, zero and
        below are no window. An integer lets whole blocks be skipped when the program is built, an int32 scalar array
        (layers that alternate within a scan) when it runs.
      anchor: every query also sees the key of index 0 (arXiv 2411.13476), whatever its segment, unless that is 0, and
        whatever the window.
      soft_cap: cap * tanh(score / cap) on the scores, before the mask (Gemma 2, arXiv 2408.00118); 0 is none.
      alibi_slopes_H: float [H], one slope a query head (arXiv 2108.12409; BLOOM). Constants: they get no gradient.
      scale: factor of the scores; 1 / sqrt(D) by default.
      mesh: where the arrays lie, by `rules`; needed by kernels, which the compiler cannot split by itself.
      context_parallelism: what kernels do where the mesh splits positions: gather the keys and values of the row on all
        devices, or pass them around a ring, which needs less memory and gives all devices the same work.
      document_length: usual length of a document, by which blocks are chosen; 0 when it is the row.
      implementation: reference; chunked_xla; pallas_tpu (causal self-attention in the order of the row, segments that
        lie together, as a packer leaves them, and positions of a device a multiple of 128, of 256 in a ring); cudnn
        (the same rows on GPUs, see `cudnn_attention`); or auto: pallas_tpu on TPUs where it can serve, else
        chunked_xla. Auto leaves cudnn out until somebody has run and timed it: its layout of packed rows is not in
        JAX's public interface, and where others used it wrongly, it gave wrong numbers without an error.

    Returns:
      [B, T, H, D] in the dtype of the queries. Scores, softmax and sums are float32; rows without a visible key are 0.

    Raises:
      ValueError: shapes that do not belong together.
      SeallmError: an implementation that does not exist, or that cannot serve the call.
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
    if isinstance(window, int):
        window = window if window > 0 else None
    elif window is not None:
        window = jnp.where(window > 0, window, jnp.iinfo(jnp.int32).max).astype(jnp.int32)
    if window is not None and not causal:
        raise ValueError(f"a window of {window} looks back, so attention must be causal")
    if soft_cap < 0:
        raise ValueError(f"soft_cap {soft_cap}; it must not be negative")
    if alibi_slopes_H is not None:
        if alibi_slopes_H.shape != (H,):
            raise ValueError(f"ALiBi slopes {alibi_slopes_H.shape} for {H} query heads")
        alibi_slopes_H = jax.lax.stop_gradient(alibi_slopes_H.astype(jnp.float32))
    scale = D**-0.5 if scale is None else scale
    query_segment_ids_BxT = query_segment_ids_BxT.astype(jnp.int32)
    switches: dict[str, Any] = {
        "window": window,
        "anchor": anchor,
        "soft_cap": soft_cap,
        "alibi_slopes_H": alibi_slopes_H,
        "scale": scale,
    }
    device, common = device_of(mesh), _obstacle_to_kernels(T, S, causal, query_order_BxT)
    obstacles = dict.fromkeys(IMPLEMENTATIONS) | {
        "pallas_tpu": common or obstacle_to_pallas(q_BxTxHxD, mesh, rules, context_parallelism, document_length),
        "cudnn": common or obstacle_to_cudnn(q_BxTxHxD, device, mesh, rules, **switches),
    }
    preferred = {"tpu": ["pallas_tpu", "chunked_xla"], "gpu": ["cudnn", "chunked_xla"]}
    if implementation == "auto":
        obstacles["cudnn"] = obstacles["cudnn"] or "it is taken only where it is asked for by name"
    chosen = select_implementation(
        "attention", implementation, obstacles, preferred.get(device.platform, ["chunked_xla"])
    )
    if chosen == "cudnn":
        arguments = q_BxTxHxD, k_BxSxKxD, v_BxSxKxD, query_segment_ids_BxT
        return cudnn_attention(*arguments, window=switches["window"], scale=scale, mesh=mesh, rules=rules)
    if chosen == "pallas_tpu":
        return pallas_tpu_attention(
            q_BxTxHxD,
            k_BxSxKxD,
            v_BxSxKxD,
            query_segment_ids_BxT,
            mesh=mesh,
            rules=rules,
            context_parallelism=context_parallelism,
            document_length=document_length,
            **switches,
        )
    function: Callable[..., jax.Array] = reference_attention
    if chosen == "chunked_xla":
        block = block_in_cache(B * H) if device.platform == "cpu" else BLOCK
        function = functools.partial(chunked_xla_attention, block=block)
    return function(
        q_BxTxHxD,
        k_BxSxKxD,
        v_BxSxKxD,
        query_segment_ids_BxT,
        key_segment_ids_BxS.astype(jnp.int32),
        query_order_BxT,
        key_order_BxS,
        causal=causal,
        **switches,
    )


def _obstacle_to_kernels(T: int, S: int, causal: bool, query_order_BxT: jax.Array | None) -> str | None:
    """Why a call is no causal self-attention of rows in their own order; None when it is."""
    if not causal:
        return "it is not causal"
    if query_order_BxT is not None or T != S:
        return "its queries and keys have an order of their own, as with a cache"
    return None
