from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ObjectiveConfig
from seallm_jax.models.layout import path_name
from seallm_jax.objectives.registry import build_objective

torch = pytest.importorskip("torch")

T, PAIRS = 48, 2
# (prompt, chosen, rejected) lengths of the pairs of each row; the second row has one pair.
LENGTHS = (((5, 7, 4), (3, 6, 11)), ((8, 2, 9),))


def draw_pairs():
    rng = np.random.default_rng(0)
    return [[tuple(rng.integers(0, 150, n) for n in lengths) for lengths in row] for row in LENGTHS]


def log_probability(model, prompt, reply):
    """By transformers, the sequence on its own: sum over the reply's tokens."""
    ids = torch.tensor(np.concatenate([prompt, reply]))
    log_probabilities = torch.log_softmax(model(ids[None, :-1]).logits[0], dim=-1)
    at_targets = log_probabilities.gather(1, ids[1:, None])[:, 0]
    return at_targets[len(prompt) - 1 :].sum()


def pack(rows, reference) -> Batch:
    shape = (len(rows), T)
    names = ("tokens", "targets", "positions", "segment_ids", "language_ids")
    fields = {name: np.zeros(shape, np.int32) for name in names}
    loss_weights, reference_logps = np.zeros(shape, np.float32), np.zeros((len(rows), 2 * PAIRS), np.float32)
    for row, pairs in enumerate(rows):
        start, segment = 0, 1
        for number, (prompt, *replies) in enumerate(pairs):
            for reply in replies:
                ids = np.concatenate([prompt, reply])
                place = slice(start, start + len(ids) - 1)
                fields["tokens"][row, place], fields["targets"][row, place] = ids[:-1], ids[1:]
                fields["positions"][row, place] = np.arange(len(ids) - 1)
                fields["segment_ids"][row, place] = segment
                fields["language_ids"][row, place] = number
                loss_weights[row, place.stop - len(reply) : place.stop] = 1
                reference_logps[row, segment - 1] = log_probability(reference, prompt, reply).item()
                start, segment = place.stop, segment + 1
    return jax.tree.map(jnp.asarray, Batch(**fields, loss_weights=loss_weights, reference_logps=reference_logps))


@pytest.mark.parametrize(
    ("twins", "config"),
    [
        ({"num_key_value_heads": 4, "tie_word_embeddings": False}, ObjectiveConfig(name="dpo", beta=0.1)),
        (
            {"num_key_value_heads": 2, "tie_word_embeddings": True},
            ObjectiveConfig(name="dpo", beta=0.5, label_smoothing=0.2, sft_coefficient=0.3),
        ),
    ],
    ids=["sigmoid", "smoothed, with sft"],
    indirect=["twins"],
)
def test_loss_gradients_and_metrics_are_those_of_the_formula(twins, reference_model, config):
    rows = draw_pairs()
    twins.theirs.zero_grad()
    expected_loss, rewards, logps = 0.0, [], []
    for prompt, chosen, rejected in (pair for row in rows for pair in row):
        policy = [log_probability(twins.theirs, prompt, reply) for reply in (chosen, rejected)]
        with torch.no_grad():
            frozen = [log_probability(reference_model, prompt, reply) for reply in (chosen, rejected)]
        difference = (policy[0] - policy[1]) - (frozen[0] - frozen[1])
        loss = (
            -torch.nn.functional.logsigmoid(config.beta * difference) * (1 - config.label_smoothing)
            - torch.nn.functional.logsigmoid(-config.beta * difference) * config.label_smoothing
            - config.sft_coefficient * policy[0] / len(chosen)
        )
        loss.backward()
        expected_loss += loss.item()
        rewards.append([config.beta * (p - f).item() for p, f in zip(policy, frozen, strict=True)])
        logps.append([p.item() for p in policy])

    objective = build_objective(config, 3, compute_dtype=jnp.float32)
    graph, parameters = nnx.split(twins.ours)

    @jax.jit
    def run(parameters, batch):
        def loss(parameters):
            sums = objective(nnx.merge(graph, parameters), batch)
            return sums.loss, sums

        return jax.grad(loss, has_aux=True)(parameters)

    gradients, sums = run(parameters, pack(rows, reference_model))

    np.testing.assert_allclose(sums.loss, expected_loss, rtol=1e-5)
    assert sums.count == 3
    np.testing.assert_array_equal(sums.by_language["count"], [2, 1, 0])
    np.testing.assert_allclose(sums.by_language["loss"].sum(), expected_loss, rtol=1e-5)
    rewards, logps = np.array(rewards), np.array(logps)
    expected_metrics = {
        "rewards/chosen": rewards[:, 0],
        "rewards/rejected": rewards[:, 1],
        "rewards/margins": rewards[:, 0] - rewards[:, 1],
        "rewards/accuracies": rewards[:, 0] > rewards[:, 1],
        "logps/chosen": logps[:, 0],
        "logps/rejected": logps[:, 1],
    }
    assert sums.metrics.keys() == expected_metrics.keys()
    for name, values in expected_metrics.items():
        np.testing.assert_allclose(sums.metrics[name], (values.sum(), 3), rtol=1e-4, atol=1e-4, err_msg=name)

    tensors = {name: parameter.grad.numpy() for name, parameter in twins.theirs.named_parameters()}
    expected = twins.parameters(tensors)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        wanted = expected[path_name(path)]
        found = np.asarray(leaf)[:150] if path_name(path) in ("embedding.kernel", "head.kernel") else np.asarray(leaf)
        assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max(), path_name(path)
