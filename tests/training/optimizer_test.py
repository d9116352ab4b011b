"""Schedules at their corners, AdamW against torch-free arithmetic, and what decay leaves alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seallm_jax.core.schema import OptimizerConfig
from seallm_jax.training.optimizer import build_optimizer, build_schedule, decay_mask


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


def test_update_is_adamw_with_clipping_and_no_decay_on_norms():
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", warmup_fraction=0, weight_decay=0.5, clip_norm=1.0)
    params = {"final_norm": {"scale": jnp.ones(3)}, "head": {"kernel": jnp.full((2, 2), 2.0)}}
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 3.0), params)
    optimizer = build_optimizer(config, 10)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # the first Adam update is the sign of the gradient, whatever its scale
    np.testing.assert_allclose(updates["final_norm"]["scale"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * (1 + 0.5 * 2.0), rtol=1e-5)


def test_clip_norm_zero_does_not_clip():
    gradients = {"kernel": jnp.full((4,), 100.0)}
    for clip_norm, expected in ((0.0, 100.0), (1.0, 0.5)):
        optimizer = build_optimizer(OptimizerConfig(clip_norm=clip_norm, b1=0.0, warmup_fraction=0), 10)
        _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
        np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["kernel"], expected, rtol=1e-6)


def test_decay_mask_goes_by_path():
    mask = decay_mask({"layers": {"attention_norm": {"scale": 1}, "mlp": {"gate": {"kernel": 1}}}})
    assert mask == {"layers": {"attention_norm": {"scale": False}, "mlp": {"gate": {"kernel": True}}}}
