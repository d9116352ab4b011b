"""Causal self-attention of packed rows on NVIDIA GPUs, by cuDNN's flash attention.

cuDNN takes rows of several documents as offsets and lengths of the documents. JAX has that, but not in its public
interface (`jax._src.cudnn.fused_attention_stablehlo`); `jax.nn.dot_product_attention` takes a mask of all pairs, which
costs the whole triangle.

Shape letters are those of `api.py`; M documents of a row at most.
"""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from seallm_jax.core.sharding import ShardingRules, extent
from seallm_jax.kernels.attention.chunked_xla import chunked_xla_attention

MOST_DOCUMENTS = 64  # cuDNN keeps float32 [B, M, H, T] for the backward pass
_OLDEST = 90600  # the cuDNN version that takes documents
_MODULE = "jax._src.cudnn.fused_attention_stablehlo"


def cudnn_attention(
    q_BxTxHxD: jax.Array,
    k_BxTxKxD: jax.Array,
    v_BxTxKxD: jax.Array,
    segment_ids_BxT: jax.Array,
    *,
    window: int | None,
    scale: float,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    most_documents: int = MOST_DOCUMENTS,
) -> jax.Array:
    """See `seallm_jax.kernels.attention.api.attention`, which asks `obstacle_to_cudnn` first.

    Where a row of a device has more documents than `most_documents`, chunked XLA computes all rows of that device.
    """
    B, T, H, _ = q_BxTxHxD.shape
    fused: Any = importlib.import_module(_MODULE)

    def local(q, k, v, segments):
        offsets_BxM1, lengths_BxM, count_B = documents(segments, most_documents)

        def packed(q, k, v):
            # releases of JAX differ in whether offsets of keys count heads of keys or of queries; here both are one
            k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
            return fused.dot_product_attention(
                q,
                k,
                v,
                q_seqlen=lengths_BxM,
                kv_seqlen=lengths_BxM,
                q_offsets=offsets_BxM1,
                kv_offsets=offsets_BxM1,
                scale=scale,
                mask_type=fused.MaskType.PADDING_CAUSAL,
                sliding_window_length=window,
            )

        def chunked(q, k, v):
            return chunked_xla_attention(
                q, k, v, segments, segments, None, None, causal=True, scale=scale, window=window
            )

        out = jax.lax.cond((count_B <= most_documents).all(), packed, chunked, q, k, v)
        return jnp.where((segments != 0)[:, :, None, None], out, 0)

    if mesh is None:
        return local(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, segment_ids_BxT)
    rows, heads = rules.sharding(mesh, "batch", "heads", shape=(B, H)).spec
    if k_BxTxKxD.shape[2] % extent(mesh, heads):
        k_BxTxKxD, v_BxTxKxD = (jnp.repeat(x, H // x.shape[2], axis=2) for x in (k_BxTxKxD, v_BxTxKxD))
    by_heads = PartitionSpec(rows, None, heads)
    specs = (by_heads, by_heads, by_heads, PartitionSpec(rows))
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=by_heads, check_vma=False)
    return sharded(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, segment_ids_BxT)


def documents(segment_ids_BxT: jax.Array, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the runs of equal segment ids lie. Padding is a run like others, so that all positions are written.

    Returns:
      int32 [B, most + 1], first position of each run, -1 behind the last; int32 [B, most], its length, -1 likewise;
      int32 [B], runs of each row. Runs beyond `most` are left out of the first two.
    """
    B, T = segment_ids_BxT.shape
    changed_BxT = jnp.diff(segment_ids_BxT, axis=1, prepend=segment_ids_BxT[:, :1] - 1) != 0
    run_BxT = jnp.cumsum(changed_BxT, axis=1) - 1
    starts_BxT = jnp.where(changed_BxT, jnp.arange(T), T)
    runs_BxM = jnp.full((B, most + 1), T).at[jnp.arange(B)[:, None], run_BxT].min(starts_BxT, mode="drop")
    lengths_BxM = jnp.diff(runs_BxM, axis=1)
    offsets = jnp.where(runs_BxM < T, runs_BxM, -1).at[:, most].set(-1)
    lengths = jnp.where(lengths_BxM > 0, lengths_BxM, -1)
    return offsets.astype(jnp.int32), lengths.astype(jnp.int32), run_BxT[:, -1].astype(jnp.int32) + 1


def obstacle_to_cudnn(
    q_BxTxHxD: jax.Array,
    device: jax.Device,
    mesh: jax.sharding.Mesh | None,
    rules: ShardingRules,
    *,
    window: int | jax.Array | None,
    anchor: bool,
    soft_cap: float,
    alibi_slopes_H: jax.Array | None,
    scale: float,
) -> str | None:
    """Why cuDNN cannot serve a causal self-attention; None when it can."""
    D, dtype = q_BxTxHxD.shape[3], q_BxTxHxD.dtype
    for switch, used in {"soft cap": soft_cap, "ALiBi": alibi_slopes_H is not None, "anchor": anchor}.items():
        if used:
            return f"cuDNN has no {switch}"
    if isinstance(window, jax.Array):
        return "cuDNN's window must be known when the program is built"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN takes bfloat16 and float16, not {dtype}"
    if D > 128 or D % 8:
        return f"cuDNN takes heads of at most 128, in multiples of 8, not of {D}"
    if mesh is not None and extent(mesh, rules.sharding(mesh, "sequence", shape=q_BxTxHxD.shape[1:2]).spec[0]) > 1:
        return "the mesh splits the positions of a row"
    if device.platform != "gpu":
        return f"the device is a {device.device_kind}, no NVIDIA GPU"
    return obstacle_of_device(device)


def obstacle_of_device(device: jax.Device) -> str | None:
    """Why the GPU, or what is installed for it, cannot take packed rows; None when it can."""
    capability = str(getattr(device, "compute_capability", ""))
    if not capability or int(capability.split(".")[0]) < 9:
        return f"packed rows need a GPU of compute capability 9.0, and {device.device_kind} has {capability or 'none'}"
    try:
        version = importlib.import_module(_MODULE).check_cudnn_version()
    except (ImportError, AttributeError):
        return "this version of JAX has no cuDNN attention of packed rows where it is looked for"
    except RuntimeError as error:
        return str(error).strip()
    return None if version >= _OLDEST else f"packed rows need cuDNN 9.6, and version {version} is installed"
