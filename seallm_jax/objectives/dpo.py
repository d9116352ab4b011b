"""Direct preference optimization (arXiv 2305.18290), as TRL computes it with the sigmoid loss.

Rows hold whole pairs: segment 2k + 1 is the chosen and 2k + 2 the rejected reply of pair k, each behind its prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives.losses import LossSums, sum_by_index, sum_by_segment
from seallm_jax.objectives.segment_log_probability import segment_log_probabilities


def build(
    config: ObjectiveConfig, num_languages: int, *, token_bytes: np.ndarray | None = None, **forward: Any
) -> Callable[[Decoder, Batch], LossSums]:
    """Sum over pairs, with the difference of log-ratios

        x = (log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)),

    of -(1 - e) log sigmoid(beta x) - e log sigmoid(-beta x), where e is `label_smoothing` (conservative DPO), plus
    `sft_coefficient` x the chosen reply's negative log-likelihood per token (arXiv 2404.19733).

    The count is the number of pairs. Metrics have TRL's names: rewards/chosen, rewards/rejected, rewards/margins,
    rewards/accuracies, logps/chosen, logps/rejected. `forward` goes to `Decoder.log_probability`.
    """

    del token_bytes  # the loss is of pairs

    def objective(model: Decoder, batch: Batch) -> LossSums:
        if batch.reference_logps is None:
            raise SeallmError("dpo needs batch.reference_logps; compute the reference log-probabilities first")
        S = batch.reference_logps.shape[-1]
        if S % 2:
            raise SeallmError(f"batch.reference_logps has {S} columns; pairs need an even number of segments")
        weights_BxS = sum_by_segment(batch.loss_weights, batch.segment_ids, S)
        chosen_weight_BxP, rejected_weight_BxP = _pairs(weights_BxS)
        is_pair_BxP = (chosen_weight_BxP > 0) & (rejected_weight_BxP > 0)

        policy_BxS = segment_log_probabilities(model, batch, S, **forward)
        chosen_BxP, rejected_BxP = _pairs(policy_BxS)
        reward_chosen_BxP, reward_rejected_BxP = _pairs(config.beta * (policy_BxS - batch.reference_logps))
        # Columns without a pair may hold anything, even NaN, which `where` after the logarithm would not stop.
        margin_BxP = jnp.where(is_pair_BxP, reward_chosen_BxP - reward_rejected_BxP, 0.0)
        loss_BxP = -(1 - config.label_smoothing) * jax.nn.log_sigmoid(margin_BxP)
        loss_BxP -= config.label_smoothing * jax.nn.log_sigmoid(-margin_BxP)
        loss_BxP -= config.sft_coefficient * chosen_BxP / jnp.where(is_pair_BxP, chosen_weight_BxP, 1.0)
        loss_BxP = jnp.where(is_pair_BxP, loss_BxP, 0.0)

        languages_BxP = _pairs(_segment_languages(batch, S))[0]
        count = is_pair_BxP.sum().astype(jnp.float32)
        metrics = {
            "rewards/chosen": reward_chosen_BxP,
            "rewards/rejected": reward_rejected_BxP,
            "rewards/margins": margin_BxP,
            "rewards/accuracies": (margin_BxP > 0).astype(jnp.float32),
            "logps/chosen": chosen_BxP,
            "logps/rejected": rejected_BxP,
        }
        return LossSums(
            loss=loss_BxP.sum(),
            count=count,
            by_language={
                "loss": sum_by_index(jax.lax.stop_gradient(loss_BxP), languages_BxP, num_languages),
                "count": sum_by_index(is_pair_BxP.astype(jnp.float32), languages_BxP, num_languages),
            },
            metrics={
                name: (jnp.where(is_pair_BxP, jax.lax.stop_gradient(value_BxP), 0.0).sum(), count)
                for name, value_BxP in metrics.items()
            },
        )

    return objective


def _pairs(values_BxS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(chosen, rejected), each [B, S / 2]."""
    return values_BxS[:, 0::2], values_BxS[:, 1::2]


def _segment_languages(batch: Batch, num_segments: int) -> jax.Array:
    """int32 [B, S]: largest language id found in each segment, -1 where a row has no such segment."""
    inside_BxTxS = batch.segment_ids[..., None] == 1 + jnp.arange(num_segments)
    return jnp.where(inside_BxTxS, batch.language_ids[..., None], -1).max(axis=1)
