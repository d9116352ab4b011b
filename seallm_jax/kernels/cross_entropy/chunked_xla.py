"""Linear cross-entropy over chunks of the vocabulary, in plain XLA, for any backend.

One `lax.scan` walks the vocabulary with an online log-sum-exp; the backward pass recomputes each chunk of logits. The
chunks are strided (chunk c holds rows c, C + c, 2C + c, ...), for two reasons. A matrix sharded by vocabulary stays
sharded within every chunk, and so do the rows and positions of the hidden states, which are never cut. And each row of
the matrix's gradient is complete after one chunk, so that its sum over devices is taken once and not per chunk.

Shape letters: B rows, T positions, M hidden size, V padded vocabulary, C chunks, v = V / C.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.precision import matmul_precision

CHUNK = 2048  # columns of logits in memory at a time, about


def chunked_xla_log_probability(
    hidden_BxTxM: jax.Array, output_VxM: jax.Array, targets_BxT: jax.Array, *, logical_size: int, chunk: int = CHUNK
) -> TokenLogProbability:
    """See `seallm_jax.kernels.cross_entropy.api.linear_log_probability`; `chunk` bounds the columns of one chunk."""
    return TokenLogProbability(*_log_probability(logical_size, chunk, hidden_BxTxM, output_VxM, targets_BxT))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _log_probability(logical_size, chunk, hidden_BxTxM, output_VxM, targets_BxT):
    return _forward(logical_size, chunk, hidden_BxTxM, output_VxM, targets_BxT)[0]


def _forward(logical_size, chunk, hidden_BxTxM, output_VxM, targets_BxT):
    chunks_CxvxM, ids_Cxv = _chunks(output_VxM, chunk)

    def visit(carry, xs):
        maximum_BxT, total_BxT, at_target_BxT = carry
        chunk_vxM, ids_v = xs
        logits_BxTxv = _logits(hidden_BxTxM, chunk_vxM, ids_v, logical_size)
        old_maximum_BxT, maximum_BxT = maximum_BxT, jnp.maximum(maximum_BxT, logits_BxTxv.max(axis=-1))
        total_BxT *= jnp.exp(old_maximum_BxT - maximum_BxT)
        total_BxT += jnp.exp(logits_BxTxv - maximum_BxT[..., None]).sum(axis=-1)
        at_target_BxT += jnp.where(ids_v == targets_BxT[..., None], logits_BxTxv, 0.0).sum(axis=-1)
        return (maximum_BxT, total_BxT, at_target_BxT), None

    zeros_BxT = jnp.zeros(targets_BxT.shape, jnp.float32)
    # Chunk 0 holds id 0, which is never padding: -inf turns into a finite maximum there.
    carry = jnp.full_like(zeros_BxT, -jnp.inf), zeros_BxT, zeros_BxT
    (maximum_BxT, total_BxT, at_target_BxT), _ = jax.lax.scan(visit, carry, (chunks_CxvxM, ids_Cxv))
    logsumexp_BxT = maximum_BxT + jnp.log(total_BxT)
    outputs = at_target_BxT - logsumexp_BxT, at_target_BxT >= maximum_BxT
    return outputs, (hidden_BxTxM, output_VxM, targets_BxT, logsumexp_BxT)


def _backward(logical_size, chunk, residuals, cotangents):
    hidden_BxTxM, output_VxM, targets_BxT, logsumexp_BxT = residuals
    d_BxT = cotangents[0]  # the cotangent of `correct` means nothing
    dtype = hidden_BxTxM.dtype
    dot = functools.partial(jax.lax.dot_general, precision=matmul_precision(dtype), preferred_element_type=jnp.float32)
    leading = tuple(range(targets_BxT.ndim))
    chunks_CxvxM, ids_Cxv = _chunks(output_VxM, chunk)

    def visit(d_hidden_BxTxM, xs):
        chunk_vxM, ids_v = xs
        logits_BxTxv = _logits(hidden_BxTxM, chunk_vxM, ids_v, logical_size)
        softmax_BxTxv = jnp.exp(logits_BxTxv - logsumexp_BxT[..., None])
        hit_BxTxv = ids_v == targets_BxT[..., None]
        d_logits_BxTxv = (d_BxT[..., None] * (hit_BxTxv - softmax_BxTxv)).astype(dtype)
        d_hidden_BxTxM += dot(d_logits_BxTxv, chunk_vxM.astype(dtype), (((len(leading),), (0,)), ((), ())))
        d_chunk_vxM = dot(d_logits_BxTxv, hidden_BxTxM, ((leading, leading), ((), ())))
        return d_hidden_BxTxM, d_chunk_vxM.astype(output_VxM.dtype)

    d_hidden_BxTxM, d_chunks_CxvxM = jax.lax.scan(
        visit, jnp.zeros(hidden_BxTxM.shape, jnp.float32), (chunks_CxvxM, ids_Cxv)
    )
    d_output_VxM = d_chunks_CxvxM.swapaxes(0, 1).reshape(output_VxM.shape)
    return d_hidden_BxTxM.astype(dtype), d_output_VxM, None


_log_probability.defvjp(_forward, _backward)


def _chunks(output_VxM: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Strided chunks of the matrix and the ids of their rows.

    Their number is a power of two up to 128, so that a vocabulary padded to 128 x tensor still splits over `tensor`.
    """
    V, M = output_VxM.shape
    C = 1
    while C < 128 and V % (2 * C) == 0 and chunk < V // C:
        C *= 2
    return output_VxM.reshape(V // C, C, M).swapaxes(0, 1), jnp.arange(V).reshape(V // C, C).T


def _logits(hidden_BxTxM: jax.Array, chunk_vxM: jax.Array, ids_v: jax.Array, logical_size: int) -> jax.Array:
    """float32 [B, T, v], -inf in padded columns."""
    logits_BxTxv = jnp.einsum(
        "...m,vm->...v",
        hidden_BxTxM,
        chunk_vxM.astype(hidden_BxTxM.dtype),
        precision=matmul_precision(hidden_BxTxM.dtype),
        preferred_element_type=jnp.float32,
    )
    return jnp.where(ids_v < logical_size, logits_BxTxv, -jnp.inf)
