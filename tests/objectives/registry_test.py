from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
import pytest

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.objectives.registry import OBJECTIVES, build_objective


def test_every_configurable_objective_is_there():
    assert set(OBJECTIVES) == set(typing.get_args(typing.get_type_hints(ObjectiveConfig)["name"]))


def test_options_reach_the_decoder(model, batch):
    for name in OBJECTIVES:
        objective = build_objective(ObjectiveConfig(name=name), 3, compute_dtype=jnp.float32, remat="full")
        sums = jax.jit(objective)(model, batch)
        assert sums.count > 0 and sums.loss > 0


def test_an_unknown_objective_is_an_error():
    with pytest.raises(UsageError, match="objective.name is 'ppo'; use one of language_modeling, dpo"):
        build_objective(ObjectiveConfig(name="ppo"), 3)
