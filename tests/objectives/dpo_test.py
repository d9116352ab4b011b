from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.objectives import dpo
from seallm_jax.objectives.segment_log_probability import segment_log_probabilities

FLOAT32 = {"compute_dtype": jnp.float32}


@pytest.fixture(scope="module")
def objective():
    return jax.jit(dpo.build(ObjectiveConfig(name="dpo"), 3, **FLOAT32))


def test_the_loss_of_the_reference_itself_is_log_two(model, batch, objective):
    own = segment_log_probabilities(model, batch, 4, **FLOAT32)
    sums = objective(model, dataclasses.replace(batch, reference_logps=own))
    np.testing.assert_allclose(sums.loss, 3 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(sums.metrics["rewards/margins"][0], 0, atol=1e-5)


def test_pairs_are_counted_by_language_and_incomplete_ones_left_out(model, batch, objective):
    sums = objective(model, batch)
    assert sums.count == 3
    np.testing.assert_array_equal(sums.by_language["count"], [1, 1, 1])
    np.testing.assert_allclose(sums.by_language["loss"].sum(), sums.loss, rtol=1e-6)

    no_rejected = dataclasses.replace(batch, segment_ids=jnp.where(batch.segment_ids == 4, 0, batch.segment_ids))
    fewer = objective(model, no_rejected)
    assert fewer.count == 2 and fewer.metrics["rewards/margins"][1] == 2
    np.testing.assert_array_equal(fewer.by_language["count"], [1, 1, 0])
    nothing = objective(model, jax.tree.map(jnp.zeros_like, batch))
    assert nothing.count == 0 and nothing.loss == 0


def test_exchanging_the_replies_mirrors_the_rewards(model, batch, objective):
    swapped_ids = jnp.array([0, 2, 1, 4, 3])[batch.segment_ids]
    swapped = dataclasses.replace(
        batch, segment_ids=swapped_ids, reference_logps=batch.reference_logps[:, jnp.array([1, 0, 3, 2])]
    )
    there, back = objective(model, batch).metrics, objective(model, swapped).metrics
    np.testing.assert_allclose(there["rewards/chosen"], back["rewards/rejected"], rtol=1e-5)
    np.testing.assert_allclose(there["rewards/margins"][0], -back["rewards/margins"][0], rtol=1e-5, atol=1e-6)
    assert there["rewards/accuracies"][0] + back["rewards/accuracies"][0] == 3


def test_a_missing_reference_is_an_error(model, batch, objective):
    with pytest.raises(SeallmError, match="dpo needs batch.reference_logps"):
        objective(model, dataclasses.replace(batch, reference_logps=None))
    with pytest.raises(SeallmError, match="reference_logps has 3 columns"):
        objective(model, dataclasses.replace(batch, reference_logps=batch.reference_logps[:, :3]))


def test_reference_values_without_a_pair_are_ignored(model, batch):
    objective = dpo.build(ObjectiveConfig(name="dpo"), 3, **FLOAT32)
    garbage = dataclasses.replace(batch, reference_logps=batch.reference_logps.at[1, 2:].set(jnp.nan))
    graph, parameters = nnx.split(model)
    run = jax.jit(jax.value_and_grad(lambda p, batch: objective(nnx.merge(graph, p), batch).loss))
    for x, y in zip(jax.tree.leaves(run(parameters, garbage)), jax.tree.leaves(run(parameters, batch)), strict=True):
        np.testing.assert_array_equal(x, y)
