"""The oracle: linear cross-entropy written out in float32, all logits in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seallm_jax.kernels.cross_entropy.result import TokenLogProbability


def reference_log_probability(
    hidden_BxTxM: jax.Array,
    output_VxM: jax.Array,
    targets_BxT: jax.Array,
    *,
    logical_size: int,
    soft_cap: float = 0.0,
    entropy: bool = False,
) -> TokenLogProbability:
    """See `seallm_jax.kernels.cross_entropy.api.linear_log_probability`."""
    logits_BxTxV = jnp.einsum(
        "...m,vm->...v",
        hidden_BxTxM.astype(jnp.float32),
        output_VxM[:logical_size].astype(jnp.float32),
        precision="highest",
    )
    if soft_cap:
        logits_BxTxV = soft_cap * jnp.tanh(logits_BxTxV / soft_cap)
    log_probabilities_BxTxV = jax.nn.log_softmax(logits_BxTxV, axis=-1)
    at_target = jnp.take_along_axis(log_probabilities_BxTxV, targets_BxT[..., None], axis=-1)[..., 0]
    return TokenLogProbability(
        log_probability=at_target,
        correct=at_target >= log_probabilities_BxTxV.max(axis=-1),
        logsumexp=jax.nn.logsumexp(logits_BxTxV, axis=-1),
        entropy=-(jnp.exp(log_probabilities_BxTxV) * log_probabilities_BxTxV).sum(axis=-1) if entropy else None,
    )
