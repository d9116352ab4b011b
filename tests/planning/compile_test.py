"""The step as training runs it, compiled for real TPU slices: what fits, what does not, and what was asked wrongly."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import pytest

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.schema import MeshConfig, ModelConfig, ObjectiveConfig, PackingConfig, TrainConfig
from seallm_jax.planning import compile as planning
from seallm_jax.planning.child import NO_TEXT
from seallm_jax.planning.compile import plan_step
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.topology import GIB

TINY = ModelConfig(vocabulary_size=6144, padded_vocabulary_size=6144)


@pytest.fixture(scope="module")
def plans():
    """Two compilations at a time. Large models take minutes and are in tests/proofs/named_models.py."""
    pytest.importorskip("libtpu")
    wanted = {
        "two axes": (TINY, TrainConfig(batch_rows=16), PackingConfig(), MeshConfig(tensor=2), "v5e:4x4"),
        "too large": (
            dataclasses.replace(TINY, num_layers=20000),
            TrainConfig(batch_rows=1, remat="full"),
            PackingConfig(sequence_length=128),
            MeshConfig(),
            "v5e:1x1",
        ),
    }
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        started = {
            name: pool.submit(plan_step, *arguments, predict=name == "two axes") for name, arguments in wanted.items()
        }
        return {name: future.result() for name, future in started.items()}


def test_two_axes(plans):
    plan = plans["two axes"]
    assert plan.fits and plan.devices == 16 and (plan.mesh["fsdp"], plan.mesh["tensor"]) == (8, 2)
    assert 0 < plan.peak_bytes < GIB and plan.exceeds_bytes == 0
    assert plan.compile_seconds > 0 and plan.gradient_bytes == plan.parameter_bytes
    assert Plan.of_json(plan.to_json()) == plan


def test_the_time_is_predicted_unless_the_program_cannot_be_read(plans):
    plan = plans["two axes"]
    if plan.time is None:
        assert plan.time_missing == NO_TEXT
        return
    assert sum(plan.time.parts.values()) == pytest.approx(plan.time.seconds) and plan.time.seconds > 0
    assert {"matmul", "attention", "cross_entropy"} <= set(plan.time.parts)
    causal, full = plan.utilization(causal=True), plan.utilization(causal=False)
    assert causal is not None and full is not None and 0 < causal < full < 1
    assert plans["too large"].time is None and plans["too large"].time_missing == ""


def test_what_does_not_fit_says_by_how_much(plans):
    plan = plans["too large"]
    assert not plan.fits and plan.needed_bytes is not None
    assert plan.needed_bytes > 3 * plan.parameter_bytes and plan.exceeds_bytes > 150 * GIB


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:4x4", r"topology 'v9:4x4' is not known; write one of v4, v5e"),
        ("v5e", "as in v5e:16x16"),
        ("v5e:2x2x2", "v5e has 2 dimensions, as in v5e:4x4"),
        ("v5p:4x4", "v5p has 3 dimensions"),
    ],
)
def test_unknown_topologies(topology, message):
    with pytest.raises(UsageError, match=message):
        plan_step(TINY, TrainConfig(), PackingConfig(), MeshConfig(), topology)


def test_errors_of_the_child_come_back_as_errors():
    pytest.importorskip("libtpu")
    with pytest.raises(UsageError, match=r"batch_rows / accumulation is 3, .*16 devices"):
        plan_step(TINY, TrainConfig(batch_rows=3), PackingConfig(), MeshConfig(), "v5e:4x4")


def test_a_problem_of_the_model_is_not_blamed_on_the_compiler():
    pytest.importorskip("libtpu")
    with pytest.raises(SeallmError, match="^model.vocabulary_size is 0"):
        plan_step(ModelConfig(), TrainConfig(), PackingConfig(), MeshConfig(), "v5e:4x4")


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SeallmError, match="pip install libtpu"):
        plan_step(TINY, TrainConfig(), PackingConfig(), MeshConfig(), "v5e:4x4")


def test_preferences_compile_with_their_references():
    pytest.importorskip("libtpu")
    small = dataclasses.replace(TINY, vocabulary_size=500, padded_vocabulary_size=512, num_layers=1)
    train = TrainConfig(batch_rows=4, objective=ObjectiveConfig(name="dpo"))
    plan = plan_step(small, train, PackingConfig(sequence_length=128, maximum_pairs=2), MeshConfig(), "v5e:2x2")
    assert plan.fits and plan.batch_bytes == 128 * 6 * 4 + 4 * 4
