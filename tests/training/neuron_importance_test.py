"""Importance against the change of the loss when the weights of one neuron after another are scaled."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_job import MODEL, FakeSource

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.models.layout import initialize, parameter_shardings
from seallm_jax.models.neurons import KINDS
from seallm_jax.training.neuron_importance import neuron_importance

STEP = 0.02
ROWS = 4
NEURONS = {"mlp": (2, 32), "attention.query": (2, 16), "attention.key": (2, 8), "attention.value": (2, 8)}


@functools.cache
def parts():
    """(graph, parameters) of a model whose neurons change the loss by more than rounding does; biases are not zero."""
    config = dataclasses.replace(MODEL, query_key_value_bias=True, mlp_bias=True, initializer_range=0.4)
    graph, state = nnx.split(initialize(config, seed=0))
    random = np.random.default_rng(1)
    return graph, jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype(np.float32), state)


@pytest.fixture(scope="module")
def batches():
    return list(FakeSource(total_rows=2 * ROWS, batch_rows=ROWS).batches(0, slice(0, ROWS)))


def importance(batches, kinds=tuple(KINDS), devices=1, **mesh):
    mesh = build_mesh(MeshConfig(**mesh), jax.devices()[:devices])
    graph, parameters = parts()
    model = nnx.merge(graph, jax.device_put(parameters, parameter_shardings(parameters, mesh)))
    return neuron_importance(model, batches, kinds, mesh=mesh)


def scaled(parameters, factors):
    """Parameters of a model whose hidden activations, queries, keys and values are multiplied by these factors."""
    state = jax.tree.map(lambda leaf: leaf, parameters)  # a copy, whose variables may be set
    down = state["layers"]["mlp"]["down"]["kernel"]
    down[...] = down[...] * factors["mlp"][:, :, None]
    for name in ("query", "key", "value"):
        projection = state["layers"]["attention"][name]
        L, _, H, D = projection["kernel"].shape
        factor_LxHxD = factors[f"attention.{name}"].reshape(L, H, D)
        projection["kernel"][...] = projection["kernel"][...] * factor_LxHxD[:, None]
        projection["bias"][...] = projection["bias"][...] * factor_LxHxD
    return state


@functools.cache
def losses():
    """(batch, factors) -> [B, T], from a softmax over the whole vocabulary."""
    graph, parameters = parts()

    @jax.jit
    def run(batch, factors):
        model = nnx.merge(graph, scaled(parameters, factors))
        hidden = model(batch.tokens, batch.positions, batch.segment_ids, compute_dtype=jnp.float32)
        table = jax.nn.log_softmax(model.logits(hidden)[..., : MODEL.vocabulary_size])
        return -jnp.take_along_axis(table, batch.targets[..., None], axis=-1)[..., 0]

    return run


def finite_difference(batch, kind, place):
    """Derivative of the loss by a factor on one neuron."""

    def loss(size):
        factors = {kind: np.ones(shape, np.float32) for kind, shape in NEURONS.items()}
        factors[kind][place] += size
        return np.average(np.asarray(losses()(batch, factors), np.float64), weights=batch.loss_weights)

    def slope(size):
        return (loss(size) - loss(-size)) / (2 * size)

    return (4 * slope(STEP) - slope(2 * STEP)) / 3  # the third derivative cancels


def test_it_is_what_scaling_a_neuron_does_to_the_loss(batches):
    found = importance(batches)
    for kind, shape in NEURONS.items():
        assert found[kind].shape == shape and found[kind].dtype == np.float32
        for place in list(np.ndindex(shape))[::5]:
            expected = np.mean([abs(finite_difference(batch, kind, place)) for batch in batches])

            np.testing.assert_allclose(
                found[kind][place], expected, rtol=5e-3, atol=5e-4 * found[kind].mean(), err_msg=f"{kind} {place}"
            )


def test_a_mesh_does_not_change_it(batches):
    expected = importance(batches)
    for kind, values in importance(batches, devices=8, data=2, fsdp=2, tensor=2).items():
        np.testing.assert_allclose(values, expected[kind], rtol=1e-3, atol=1e-5 * expected[kind].mean())


def test_padding_counts_nothing(batches):
    (batch,) = batches[:1]
    padded = dataclasses.replace(batch, loss_weights=batch.loss_weights * (np.arange(ROWS) < 2)[:, None])
    other = dataclasses.replace(padded, tokens=np.where(np.arange(ROWS)[:, None] < 2, padded.tokens, 0))
    expected = importance([padded])
    for kind, values in importance([other]).items():
        np.testing.assert_allclose(values, expected[kind], rtol=1e-4, atol=1e-6 * expected[kind].mean())


def test_without_a_batch_there_is_none():
    with pytest.raises(ValueError, match="no batch"):
        importance([])
