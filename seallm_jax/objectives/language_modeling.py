"""Next-token prediction on all positions that carry a weight: pretraining and instruction tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives.losses import LossSums, sum_by_index


def build(
    config: ObjectiveConfig, num_languages: int, *, token_bytes: np.ndarray | None = None, **forward: Any
) -> Callable[[Decoder, Batch], LossSums]:
    """Weighted negative log-likelihood in nats. `forward` goes to `Decoder.log_probability` (compute_dtype, mesh, ...).

    `token_bytes` adds, by language, the bytes of the tokens that are learned.

    Metrics: accuracy, the share of weighted tokens that are the most likely one.
    """
    del config  # nothing to choose

    def objective(model: Decoder, batch: Batch) -> LossSums:
        log_probability_BxT, correct_BxT, *_ = model.log_probability(batch, **forward)
        weights_BxT = batch.loss_weights.astype(jnp.float32)
        loss_BxT = -log_probability_BxT * weights_BxT
        count = weights_BxT.sum()
        by_language = {"loss": jax.lax.stop_gradient(loss_BxT), "count": weights_BxT}
        if token_bytes is not None:
            by_language["bytes"] = weights_BxT * jnp.asarray(token_bytes, jnp.float32)[batch.targets]
        return LossSums(
            loss=loss_BxT.sum(),
            count=count,
            by_language={
                name: sum_by_index(values_BxT, batch.language_ids, num_languages)
                for name, values_BxT in by_language.items()
            },
            metrics={"accuracy": ((correct_BxT * weights_BxT).sum(), count)},
        )

    return objective
