from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.objectives import language_modeling

TOKEN_BYTES = np.arange(60) % 7
objective = language_modeling.build(ObjectiveConfig(), 4, token_bytes=TOKEN_BYTES, compute_dtype=jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _run(graph, parameters, batch):
    def loss(parameters):
        sums = objective(nnx.merge(graph, parameters), batch)
        return sums.loss, sums

    gradients, sums = jax.grad(loss, has_aux=True)(parameters)
    return sums, gradients


def run(model, batch):
    """(LossSums, gradients)."""
    return _run(*nnx.split(model), batch)


def test_sums_are_those_of_optax_by_language(model, batch, logits):
    sums, _ = run(model, batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[..., :60], batch.targets) * batch.loss_weights
    np.testing.assert_allclose(sums.loss, losses.sum(), rtol=1e-5)
    assert sums.count == 12
    for language in range(4):
        here = batch.language_ids == language
        np.testing.assert_allclose(sums.by_language["loss"][language], losses[here].sum(), rtol=1e-5)
        np.testing.assert_allclose(sums.by_language["count"][language], batch.loss_weights[here].sum())
        learned = np.asarray(batch.targets)[np.asarray(here & (batch.loss_weights > 0))]
        assert sums.by_language["bytes"][language] == TOKEN_BYTES[learned].sum()
    correct = (logits.argmax(-1) == batch.targets) * batch.loss_weights
    assert sums.metrics["accuracy"] == (correct.sum(), 12)


def test_weights_scale_the_loss_and_its_gradient(model, batch):
    sums, gradients = run(model, batch)
    twice, gradients_twice = run(model, dataclasses.replace(batch, loss_weights=2 * batch.loss_weights))
    np.testing.assert_allclose(twice.loss, 2 * sums.loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradients_twice), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(x, 2 * y, rtol=1e-4, atol=1e-6)


def test_rows_without_weight_give_zero_and_a_finite_gradient(model, batch):
    sums, gradients = run(model, jax.tree.map(jnp.zeros_like, batch))
    assert sums.loss == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))
