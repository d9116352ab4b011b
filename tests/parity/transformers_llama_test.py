from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.layout import path_name
from seallm_jax.models.llama import weights
from seallm_jax.objectives.registry import build_objective

torch = pytest.importorskip("torch")

LENGTHS = ((9, 4, 7), (16, 3))  # documents of the two packed rows
T = 24


@pytest.fixture(scope="module")
def documents() -> list[list[np.ndarray]]:
    """Random ids, one more than a document has positions."""
    rng = np.random.default_rng(0)
    return [[rng.integers(0, 150, length + 1) for length in row] for row in LENGTHS]


@pytest.fixture(scope="module")
def batch(documents) -> Batch:
    fields = {name: np.zeros((len(documents), T), np.int32) for name in ("tokens", "targets", "positions", "segments")}
    for row, ids_of_row in enumerate(documents):
        start = 0
        for number, ids in enumerate(ids_of_row, start=1):
            place = slice(start, start + len(ids) - 1)
            fields["tokens"][row, place], fields["targets"][row, place] = ids[:-1], ids[1:]
            fields["positions"][row, place], fields["segments"][row, place] = np.arange(len(ids) - 1), number
            start = place.stop
    segments = fields.pop("segments")
    weights = (segments > 0).astype(np.float32)
    return jax.tree.map(
        jnp.asarray,
        Batch(**fields, segment_ids=segments, loss_weights=weights, language_ids=np.zeros_like(segments)),
    )


def test_every_tensor_of_the_checkpoint_is_named(twins):
    config = twins.ours.config
    names = [name for weight in weights(config) for name in weight.names(config)]
    tied = {"lm_head.weight"} if config.tie_embeddings else set()
    assert set(names) == set(twins.theirs.state_dict()) - tied
    for weight in weights(config):
        for name in weight.names(config):
            assert weight.checkpoint_shape(config) == tuple(twins.theirs.state_dict()[name].shape)


def test_packed_logits_are_those_of_each_document_alone(twins, documents, batch):
    forward = jax.jit(functools.partial(nnx.merge(*nnx.split(twins.ours)), compute_dtype=jnp.float32))
    logits = np.asarray(twins.ours.logits(forward(batch.tokens, batch.positions, batch.segment_ids)))
    assert logits.shape[-1] == 256 and np.all(np.isneginf(logits[..., 150:]))
    for row, ids_of_row in enumerate(documents):
        for number, ids in enumerate(ids_of_row, start=1):
            with torch.no_grad():
                expected = twins.theirs(torch.tensor(ids[None, :-1])).logits[0].numpy()
            found = logits[row, np.asarray(batch.segment_ids[row]) == number, :150]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_packed_loss_and_gradients_are_the_sums_over_documents(twins, documents, batch):
    objective = build_objective(ObjectiveConfig(), 1, compute_dtype=jnp.float32, remat="full")
    graph, parameters = nnx.split(twins.ours)
    loss, gradients = jax.jit(jax.value_and_grad(lambda p: objective(nnx.merge(graph, p), batch).loss))(parameters)

    twins.theirs.zero_grad()
    expected_loss = 0.0
    for ids in (ids for row in documents for ids in row):
        logits = twins.theirs(torch.tensor(ids[None, :-1])).logits[0]
        document_loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
        document_loss.backward()
        expected_loss += document_loss.item()
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)

    tensors = {name: parameter.grad.numpy() for name, parameter in twins.theirs.named_parameters()}
    expected = twins.parameters(tensors)
    found = {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}
    assert found.keys() == expected.keys()
    for path, gradient in expected.items():
        if path in ("embedding.kernel", "head.kernel"):
            assert not found[path][150:].any()
            found[path] = found[path][:150]
        error = np.abs(found[path] - gradient).max() / np.abs(gradient).max()
        assert error < 1e-5, f"{path}: {error}"
