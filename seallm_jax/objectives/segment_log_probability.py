"""Log-probability of each packed segment, without unpacking."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.batch import Batch
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives.losses import sum_by_segment


def segment_log_probabilities(model: Decoder, batch: Batch, num_segments: int, **forward: Any) -> jax.Array:
    """Sum of weight x log-probability over each segment.

    Args:
      model: the decoder.
      batch: packed rows; with weight 1 on replies and 0 on prompts, the result is the log-probability of the reply.
      num_segments: S; segments beyond it are left out.
      **forward: options of `Decoder.log_probability`.

    Returns:
      float32 [B, S] in nats; column s is segment s + 1, 0 where a row has no such segment.
    """
    log_probability_BxT = model.log_probability(batch, **forward).log_probability
    weights_BxT = batch.loss_weights.astype(jnp.float32)
    return sum_by_segment(log_probability_BxT * weights_BxT, batch.segment_ids, num_segments)
