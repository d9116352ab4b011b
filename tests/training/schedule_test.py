"""Schedules at their corners, and over the stages of a curriculum against optax's own."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from seallm_jax.core.schema import OptimizerConfig, StageConfig
from seallm_jax.training.schedule import build_schedule


def rates(total=100, **options) -> np.ndarray:
    schedule = build_schedule(OptimizerConfig(learning_rate=2.0, **options), total)
    return np.array([schedule(step) for step in range(total)], np.float64)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "wsd"])
def test_warmup_starts_above_zero_and_reaches_the_peak(name):
    values = rates(schedule=name, warmup_fraction=0.1)
    np.testing.assert_allclose(values[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    assert values.max() == pytest.approx(2.0)


def test_cosine_and_linear_fall_to_the_final_fraction():
    t = np.arange(90) / 90
    cosine = rates(schedule="cosine", warmup_fraction=0.1, final_fraction=0.1)
    np.testing.assert_allclose(cosine[10:], 2.0 * (0.1 + 0.9 * (1 + np.cos(np.pi * t)) / 2), rtol=1e-5)
    linear = rates(schedule="linear", warmup_fraction=0.1, final_fraction=0.1)
    np.testing.assert_allclose(linear[10:], 2.0 * (1 - 0.9 * t), rtol=1e-5)


def test_wsd_is_stable_and_decays_over_the_last_fraction():
    values = rates(schedule="wsd", warmup_fraction=0.1, decay_fraction=0.2, final_fraction=0.0)
    np.testing.assert_allclose(values[9:80], 2.0, rtol=1e-6)
    np.testing.assert_allclose(values[80:], 2.0 * (1 - np.arange(20) / 20), rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_run_of_one_step_has_a_positive_rate(name, warmup):
    assert rates(total=1, schedule=name, warmup_fraction=warmup)[0] == pytest.approx(2.0)


def stages(*rates):
    return [StageConfig(tokens=1, learning_rate=rate) for rate in rates]


def test_a_stage_has_its_own_rate():
    config = OptimizerConfig(learning_rate=2.0, warmup_fraction=0)
    values = jax.vmap(build_schedule(config, 100, stages(0.0, 1.0, 3.0), (0, 40, 70)))(np.arange(100))
    factors = np.repeat([1.0, 0.5, 1.5], [40, 30, 30])
    np.testing.assert_allclose(values, factors * rates(warmup_fraction=0), rtol=1e-5)


def test_rewarmup_is_a_schedule_for_each_stage():
    """The first as optax has it; the second rises from where the first ended."""
    config = OptimizerConfig(learning_rate=2.0, warmup_fraction=0.1, final_fraction=0.1, rewarmup=True)
    values = jax.vmap(build_schedule(config, 150, stages(0.0, 1.0), (0, 100)))(np.arange(150))
    once = optax.cosine_decay_schedule(2.0, 90, alpha=0.1)
    np.testing.assert_allclose(values[10:100], [once(step) for step in range(90)], rtol=1e-5)
    np.testing.assert_allclose(values[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-5)
    end = float(once(89))
    np.testing.assert_allclose(values[100:105], end + (1.0 - end) * np.arange(1, 6) / 5, rtol=1e-5)
    np.testing.assert_allclose(values[105:], optax.cosine_decay_schedule(1.0, 45, alpha=0.1)(np.arange(45)), rtol=1e-5)


@pytest.mark.parametrize("rewarmup", [False, True])
def test_a_stage_without_steps_is_passed_over(rewarmup):
    config = OptimizerConfig(learning_rate=2.0, schedule="constant", warmup_fraction=0, rewarmup=rewarmup)
    schedule = build_schedule(config, 10, stages(1.0, 5.0, 3.0), (0, 5, 5))
    assert [float(schedule(step)) for step in (0, 4, 5, 9)] == [1.0, 1.0, 3.0, 3.0]
