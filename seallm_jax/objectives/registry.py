"""From the configuration to an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives import dpo, language_modeling
from seallm_jax.objectives.losses import LossSums

OBJECTIVES = {"language_modeling": language_modeling.build, "dpo": dpo.build}


def build_objective(
    config: ObjectiveConfig, num_languages: int, *, token_bytes: np.ndarray | None = None, **forward: Any
) -> Callable[[Decoder, Batch], LossSums]:
    """The objective that `config.name` names.

    Args:
      config: the objective's configuration.
      num_languages: length of the sums by language.
      token_bytes: int [V], UTF-8 bytes that each id stands for, where losses by language shall come per byte, too.
      **forward: options of `Decoder.log_probability`: compute_dtype, remat, mesh, rules, kernels.

    Raises:
      UsageError: an objective that does not exist.
    """
    if config.name not in OBJECTIVES:
        raise UsageError(f"objective.name is {config.name!r}; use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[config.name](config, num_languages, token_bytes=token_bytes, **forward)
