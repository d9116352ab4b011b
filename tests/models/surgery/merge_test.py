"""Merging against the papers, written out entry by entry, and what must hold for any models."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.cli import merge as command
from seallm_jax.core.errors import SeallmError
from seallm_jax.models.surgery.merge import METHODS, SPARSE, Merge

SHAPE = (3, 5)


def random_models(seed: int, count: int, shape=SHAPE) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    base = random.normal(size=shape).astype(np.float32)
    return base, [base + random.normal(size=shape).astype(np.float32) for _ in range(count)]


def ties_by_entry(base, models, weights, densities, *, normalize=True, scale=1.0) -> np.ndarray:
    """TIES in float64, one entry after the other."""
    vectors = []
    for model, density in zip(models, densities, strict=True):
        vector = [float(m) - float(b) for m, b in zip(model.ravel(), base.ravel(), strict=True)]
        kept = max(1, math.floor(density * len(vector)))
        largest = sorted(range(len(vector)), key=lambda i: abs(vector[i]), reverse=True)[:kept]
        vectors.append([x if i in largest else 0.0 for i, x in enumerate(vector)])
    merged = []
    for i, start in enumerate(base.ravel()):
        entries = [(w, w * vector[i]) for w, vector in zip(weights, vectors, strict=True)]
        positive = sum(x for _, x in entries) >= 0
        agreeing = [(w, x) for w, x in entries if (x > 0 if positive else x < 0)]
        change = sum(x for _, x in agreeing)
        if normalize and agreeing:
            change /= sum(w for w, _ in agreeing)
        merged.append(float(start) + scale * change)
    return np.array(merged).reshape(base.shape)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    settings_of_models=st.lists(
        st.tuples(st.floats(0.1, 2.0), st.sampled_from([0.1, 0.2, 0.5, 0.9, 1.0])), min_size=1, max_size=4
    ),
    normalize=st.booleans(),
    scale=st.sampled_from([1.0, 0.4]),
)
def test_ties_is_that_of_the_paper(seed, settings_of_models, normalize, scale):
    weights, densities = zip(*settings_of_models, strict=True)
    base, models = random_models(seed, len(weights))
    found = Merge("ties", weights, densities, normalize=normalize, scale=scale).tensor("x", base, models)
    expected = ties_by_entry(base, models, weights, densities, normalize=normalize, scale=scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ties_by_hand():
    base = np.array([1.0, 1.0, 1.0, 1.0], np.float32)
    models = [base + np.array(v, np.float32) for v in ([4, -1, 3, 0.5], [2, -5, -4, 0.1])]
    # trimmed to half: [4, 0, 3, 0] and [0, -5, -4, 0]; elected: + - - (+); means of what agrees: 4, -5, -4, 0
    found = Merge("ties", (1.0, 1.0), (0.5, 0.5)).tensor("x", base, models)
    np.testing.assert_array_equal(found, [5, -4, -3, 1])
    # weights tip the third entry: 2 * 3 > 4
    found = Merge("ties", (2.0, 1.0), (0.5, 0.5)).tensor("x", base, models)
    np.testing.assert_array_equal(found, [5, -4, 4, 1])
    # without normalisation, weighted sums
    found = Merge("ties", (2.0, 1.0), (0.5, 0.5), normalize=False).tensor("x", base, models)
    np.testing.assert_array_equal(found, [9, -4, 7, 1])


def test_linear_and_task_arithmetic_by_hand():
    base, models = np.float32([1, 2]), [np.float32([3, 2]), np.float32([1, 6])]
    np.testing.assert_array_equal(Merge("linear", (1.0, 3.0)).tensor("x", None, models), [1.5, 5])
    np.testing.assert_array_equal(Merge("linear", (1.0, 3.0), normalize=False).tensor("x", None, models), [6, 20])
    np.testing.assert_array_equal(Merge("task_arithmetic", (1.0, 0.5)).tensor("x", base, models), [3, 4])
    np.testing.assert_array_equal(Merge("task_arithmetic", (1.0, 0.5), scale=2.0).tensor("x", base, models), [5, 6])
    found = Merge("task_arithmetic", (1.0, 3.0), normalize=True).tensor("x", base, models)
    np.testing.assert_array_equal(found, [1.5, 5])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_model_merged_with_itself_is_itself(method, count):
    base, (model,) = random_models(0, 1)
    merge = Merge(method, (1.0 / count,) * count, normalize=True)
    np.testing.assert_allclose(merge.tensor("x", base, [model] * count), model, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(merge.tensor("x", base, [base] * count), base, rtol=1e-6)


@pytest.mark.parametrize("method", SPARSE)
@given(seed=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None)
def test_one_model_kept_whole_is_task_arithmetic(method, seed):
    base, models = random_models(seed, 1)
    expected = Merge("task_arithmetic", (1.0,)).tensor("x", base, models)
    np.testing.assert_array_equal(Merge(method, (1.0,), (1.0,)).tensor("x", base, models), expected)


@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_dropping_keeps_the_expectation(method):
    base, models = random_models(0, 1, (2, 6))
    total = np.zeros_like(base)
    rounds = 4000
    for seed in range(rounds):
        total += Merge(method, (1.0,), (0.5,), epsilon=0.3, seed=seed).tensor("x", base, models)
    vector = np.abs(models[0] - base).max()
    np.testing.assert_allclose(total / rounds, models[0], atol=4 * vector * math.sqrt(0.8 / 0.2 / rounds))


def test_dare_drops_at_random_and_rescales():
    base = np.zeros((100, 100), np.float32)
    found = Merge("dare_ties", (1.0,), (0.25,)).tensor("x", base, [base + 1])
    assert set(np.unique(found)) == {0, 4}
    np.testing.assert_allclose((found != 0).mean(), 0.25, atol=0.02)


def test_della_keeps_large_entries_of_a_row_more_often():
    base = np.zeros((2000, 5), np.float32)
    model = np.tile(np.float32([3, 1, -5, 2, -4]), (2000, 1))  # ranks 2 0 4 1 3
    found = Merge("della", (1.0,), (0.5,), epsilon=0.2).tensor("x", base, [model])
    expected = np.float32([0.5, 0.3, 0.7, 0.4, 0.6])
    np.testing.assert_allclose((found != 0).mean(axis=0), expected, atol=0.05)
    kept = np.where(found != 0, found, np.nan)
    np.testing.assert_allclose(np.nanmax(np.abs(kept), axis=0), np.abs(model[0]) / expected, rtol=1e-5)


def test_what_is_dropped_depends_on_name_model_and_seed_alone():
    base = np.zeros((20, 20), np.float32)
    models = [base + 1, base + 1]

    def dropped(name="x", seed=0, weights=(1.0, 0.0)):
        return Merge("dare_ties", weights, (0.5, 0.5), seed=seed).tensor(name, base, models)

    np.testing.assert_array_equal(dropped(), dropped())
    for other in (dropped(name="y"), dropped(seed=1), dropped(weights=(0.0, 1.0))):
        assert np.any(dropped() != other)


def test_bfloat16_models_are_merged_in_float32():
    base, models = random_models(0, 2)
    base, models = base.astype(ml_dtypes.bfloat16), [model.astype(ml_dtypes.bfloat16) for model in models]
    found = Merge("linear", (1.0, 2.0)).tensor("x", base, models)
    assert found.dtype == np.float32
    exact = (models[0].astype(np.float64) + 2 * models[1].astype(np.float64)) / 3
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slerp", (1.0,)), "merge method is 'slerp'"),
        (("linear", ()), "no model to merge"),
        (("linear", (1.0,), (0.5,)), "linear keeps everything"),
        (("ties", (1.0, 1.0), (0.5,)), "1 densities for 2 models"),
        (("ties", (1.0,), (0.0,)), "density is 0.0"),
        (("linear", (1.0, -1.0)), "sum to 0"),
        (("della", (1.0,), (0.95,)), "epsilon is 0.15 and density 0.95"),
    ],
)
def test_settings_that_do_not_fit_are_errors(arguments, message):
    with pytest.raises(SeallmError, match=message):
        Merge(*arguments)


def test_the_command_knows_all_methods():
    assert command.METHODS == METHODS
