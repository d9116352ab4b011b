"""Next-token prediction on all positions that carry a weight: pretraining and instruction tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives.losses import LossSums, sum_by_index


def build(config: ObjectiveConfig, num_languages: int, **forward: Any) -> Callable[[Decoder, Batch], LossSums]:
    """Weighted negative log-likelihood in nats. `forward` goes to `Decoder.__call__` (compute_dtype, remat, mesh, ...).

    Metrics: accuracy, the share of weighted tokens that are the most likely one.
    """
    del config  # nothing to choose

    def objective(model: Decoder, batch: Batch) -> LossSums:
        hidden_BxTxM = model(batch.tokens, batch.positions, batch.segment_ids, **forward)
        log_probability_BxT, correct_BxT, *_ = linear_log_probability(
            hidden_BxTxM,
            model.output_matrix(),
            batch.targets,
            logical_size=model.config.vocabulary_size,
            soft_cap=model.config.logit_soft_cap,
            mesh=forward.get("mesh"),
            rules=forward.get("rules", ShardingRules()),
        )
        weights_BxT = batch.loss_weights.astype(jnp.float32)
        loss_BxT = -log_probability_BxT * weights_BxT
        count = weights_BxT.sum()
        return LossSums(
            loss=loss_BxT.sum(),
            count=count,
            by_language={
                "loss": sum_by_index(jax.lax.stop_gradient(loss_BxT), batch.language_ids, num_languages),
                "count": sum_by_index(weights_BxT, batch.language_ids, num_languages),
            },
            metrics={"accuracy": ((correct_BxT * weights_BxT).sum(), count)},
        )

    return objective
