"""Linear cross-entropy over chunks of the vocabulary, in plain XLA, for any backend.

Shape letters: B rows, T positions, N = B * T, M hidden size, V padded vocabulary, v rows of a chunk.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.pieces import (
    MASKED,
    Chunk,
    Cotangents,
    Pieces,
    Statistics,
    log_probability,
    rows_of,
)
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.precision import matmul_precision

CHUNK = 2048  # columns of logits in memory at a time


def chunked_xla_log_probability(
    hidden_BxTxM: jax.Array,
    output_VxM: jax.Array,
    targets_BxT: jax.Array,
    *,
    logical_size: int,
    soft_cap: float = 0.0,
    entropy: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    chunk: int = CHUNK,
) -> TokenLogProbability:
    """See `seallm_jax.kernels.cross_entropy.api.linear_log_probability`; `chunk` bounds the columns of one chunk."""
    pieces = Pieces(logical_size, soft_cap, entropy, _statistics, _d_logits, chunk, chunk, mesh, rules)
    return log_probability(pieces, hidden_BxTxM, output_VxM, targets_BxT)


def _statistics(pieces: Pieces, hidden_NxM: jax.Array, chunk: Chunk, targets_N: jax.Array) -> Statistics:
    logits_Nxv, _ = _logits(pieces, hidden_NxM, chunk)
    maximum_N = logits_Nxv.max(axis=-1)
    weights_Nxv = jnp.exp(logits_Nxv - maximum_N[:, None])
    hit_Nxv = jnp.arange(chunk.size) == targets_N[:, None]
    moment_N = (weights_Nxv * logits_Nxv).sum(axis=-1) if pieces.entropy else None
    at_target_N = jnp.where(hit_Nxv, logits_Nxv, 0.0).sum(axis=-1)
    return Statistics(maximum_N, weights_Nxv.sum(axis=-1), at_target_N, moment_N)


def _d_logits(
    pieces: Pieces, hidden_NxM: jax.Array, chunk: Chunk, targets_N: jax.Array, cotangents: Cotangents
) -> jax.Array:
    logits_Nxv, slope = _logits(pieces, hidden_NxM, chunk)
    factor_Nxv = cotangents.factor[:, None]
    if cotangents.entropy is not None:
        factor_Nxv -= cotangents.entropy[:, None] * logits_Nxv
    hit_Nxv = jnp.arange(chunk.size) == targets_N[:, None]
    d_logits_Nxv = factor_Nxv * jnp.exp(logits_Nxv - cotangents.logsumexp[:, None])
    d_logits_Nxv = slope * (d_logits_Nxv + jnp.where(hit_Nxv, cotangents.target[:, None], 0.0))
    return d_logits_Nxv.astype(hidden_NxM.dtype)


def _logits(pieces: Pieces, hidden_NxM: jax.Array, chunk: Chunk) -> tuple[jax.Array, jax.Array | float]:
    """float32 [N, v], and their derivative by the product of hidden state and row."""
    logits_Nxv = jax.lax.dot_general(
        hidden_NxM,
        rows_of(pieces, chunk, hidden_NxM.dtype),
        (((1,), (1,)), ((), ())),
        precision=matmul_precision(hidden_NxM.dtype),
        preferred_element_type=jnp.float32,
    )
    slope: jax.Array | float = 1.0
    if pieces.soft_cap:
        bounded_Nxv = jnp.tanh(logits_Nxv / pieces.soft_cap)
        logits_Nxv, slope = pieces.soft_cap * bounded_Nxv, 1 - bounded_Nxv**2
    return jnp.where(jnp.arange(chunk.size) < chunk.limit, logits_Nxv, MASKED), slope
