"""What the linear cross-entropy operator returns."""

from __future__ import annotations

from typing import NamedTuple

import jax


class TokenLogProbability(NamedTuple):
    """Log-probability of each target token, and what else the same pass over the vocabulary gives.

    Attributes:
      log_probability: float32 [B, T], natural logarithm; differentiable.
      correct: bool [B, T], whether no other token is more likely than the target.
      logsumexp: float32 [B, T], log-sum-exp of the (soft-capped) logits, whose square is the z-loss; differentiable.
      entropy: float32 [B, T] of the distribution, in nats; differentiable. None unless asked for.
    """

    log_probability: jax.Array
    correct: jax.Array
    logsumexp: jax.Array
    entropy: jax.Array | None = None
