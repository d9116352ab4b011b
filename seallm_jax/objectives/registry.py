"""From the configuration to an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives import dpo, language_modeling
from seallm_jax.objectives.losses import LossSums

OBJECTIVES = {"language_modeling": language_modeling.build, "dpo": dpo.build}


def build_objective(
    config: ObjectiveConfig, num_languages: int, **forward: Any
) -> Callable[[Decoder, Batch], LossSums]:
    """The objective that `config.name` names.

    Args:
      config: the objective's configuration.
      num_languages: length of the sums by language.
      **forward: options of `Decoder.__call__`: compute_dtype, remat, mesh, rules, attention_implementation.

    Raises:
      UsageError: an objective that does not exist.
    """
    if config.name not in OBJECTIVES:
        raise UsageError(f"objective.name is {config.name!r}; use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[config.name](config, num_languages, **forward)
