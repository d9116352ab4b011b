"""What the linear cross-entropy operator returns."""

from __future__ import annotations

from typing import NamedTuple

import jax


class TokenLogProbability(NamedTuple):
    """Log-probability of each target token.

    Attributes:
      log_probability: float32 [B, T], natural logarithm.
      correct: bool [B, T], whether no other token is more likely than the target.
    """

    log_probability: jax.Array
    correct: jax.Array
