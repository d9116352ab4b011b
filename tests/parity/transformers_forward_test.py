"""Logits and gradients of every family against transformers, for random shapes and switches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, note
from hypothesis import strategies as st
from random_models import LONGEST, TOLERANCE, VOCABULARY, config_values, few, in_double

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.families.registry import FAMILIES
from seallm_jax.models.layout import path_name
from seallm_jax.objectives.registry import build_objective

torch = pytest.importorskip("torch")

# Lengths of the documents of two rows: several in a row, and a row each.
PACKED, UNPACKED = ((19, 4, 21), (LONGEST, 0)), ((LONGEST,), (37,))


def draw_documents(lengths) -> list[list[np.ndarray]]:
    """Random ids, one more than a document has positions."""
    rng = np.random.default_rng(0)
    return [[rng.integers(0, VOCABULARY, length + 1) for length in row if length] for row in lengths]


def pack(documents) -> Batch:
    names = ("tokens", "targets", "positions", "segment_ids", "language_ids")
    fields = {name: np.zeros((len(documents), LONGEST), np.int32) for name in names}
    for row, ids_of_row in enumerate(documents):
        start = 0
        for number, ids in enumerate(ids_of_row, start=1):
            place = slice(start, start + len(ids) - 1)
            fields["tokens"][row, place], fields["targets"][row, place] = ids[:-1], ids[1:]
            fields["positions"][row, place] = np.arange(len(ids) - 1)
            fields["segment_ids"][row, place] = number
            start = place.stop
    weights = (fields["segment_ids"] > 0).astype(np.float32)
    return jax.tree.map(jnp.asarray, Batch(**fields, loss_weights=weights))


def compiled(ours):
    """From a batch to (logits, loss, gradients by path), in float32."""
    objective = build_objective(ObjectiveConfig(), 1, compute_dtype=jnp.float32)
    graph, parameters = nnx.split(ours)

    @jax.jit
    def run(parameters, batch):
        model = nnx.merge(graph, parameters)
        hidden = model(batch.tokens, batch.positions, batch.segment_ids, compute_dtype=jnp.float32)
        loss, gradients = jax.value_and_grad(lambda p: objective(nnx.merge(graph, p), batch).loss)(parameters)
        return model.logits(hidden), loss, gradients

    def call(batch):
        logits, loss, gradients = run(parameters, batch)
        leaves = jax.tree_util.tree_leaves_with_path(gradients)
        return np.asarray(logits), float(loss), {path_name(path): np.asarray(leaf) for path, leaf in leaves}

    return call


def expectation(twins, documents):
    """Of transformers, each document alone: (logits of each, loss, gradients by path)."""
    twins.theirs.zero_grad()
    logits, loss = [], 0.0
    for ids in (torch.tensor(ids[None]) for row in documents for ids in row):
        with torch.no_grad():
            twins.theirs(torch.tensor([[0]]))  # a short text makes dynamic rotary positions forget a longer one
        logits.append(twins.theirs(ids[:, :-1], use_cache=False).logits[0])
        document_loss = torch.nn.functional.cross_entropy(logits[-1], ids[0, 1:], reduction="sum")
        document_loss.backward()
        loss += document_loss.item()
    gradients = {name: parameter.grad.numpy() for name, parameter in twins.theirs.named_parameters()}
    return [one.detach().numpy() for one in logits], loss, twins.parameters(gradients)


def assert_close(found, exact, rounded, *, floor=0.0, what="logits"):
    """Within the tolerance of the oracle in float64, or near it as torch in float32 is, within a factor of 4."""
    allowed = max(TOLERANCE * np.abs(exact).max() + floor, 4 * np.abs(rounded - exact).max())
    error = np.abs(found - exact).max()
    assert error < allowed, f"{what}: {error} of {np.abs(exact).max()}"


@pytest.mark.parametrize("family", FAMILIES)
@few(3)
@given(data=st.data())
def test_logits_and_gradients_are_those_of_transformers(make_twins, family, data):
    values = data.draw(config_values(family))
    twins = make_twins(family, values)
    note(str(twins.ours.config))
    call = compiled(twins.ours)
    for lengths in (PACKED, UNPACKED):
        documents = draw_documents(lengths)
        batch = pack(documents)
        logits, loss, gradients = call(batch)
        rounded_logits, _, rounded_gradients = expectation(twins, documents)
        with in_double(twins.theirs):
            expected_logits, expected_loss, expected_gradients = expectation(twins, documents)

        assert np.all(np.isneginf(logits[..., VOCABULARY:]))
        segments = np.asarray(batch.segment_ids)
        places = [(row, segments[row] == n + 1) for row, ids in enumerate(documents) for n in range(len(ids))]
        for (row, place), expected, rounded in zip(places, expected_logits, rounded_logits, strict=True):
            assert_close(logits[row, place, :VOCABULARY], expected, rounded)

        assert abs(loss - expected_loss) < 1e-6 * expected_loss
        assert gradients.keys() == expected_gradients.keys()
        # What cancels, such as the gradient of BLOOM's key biases, is nothing but rounding.
        floor = 2e-7 * max(np.abs(expected).max() for expected in expected_gradients.values())
        for path, expected in expected_gradients.items():
            found = gradients[path]
            if path in ("embedding.kernel", "head.kernel"):
                assert not found[VOCABULARY:].any()
                found = found[:VOCABULARY]
            assert_close(found, expected, rounded_gradients[path], floor=floor, what=path)
