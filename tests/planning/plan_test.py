"""What follows from a plan, by hand."""

from __future__ import annotations

import json

import pytest

from seallm_jax.planning.plan import Plan
from seallm_jax.planning.topology import GIB
from tests.planning.plans import TOO_LARGE, plan


def test_what_follows_from_the_time():
    found = plan()
    assert found.step_tokens == 524_288
    assert found.tokens_per_second == 1_048_576
    assert found.days == pytest.approx(30e9 / 1_048_576 / 86_400)
    assert found.utilization(causal=True) == pytest.approx(0.2)  # 1e13 operations in half a second, of 1e14 a second
    assert found.utilization(causal=False) == pytest.approx(0.4)


def test_memory_by_category():
    assert plan().memory() == {
        "parameters": GIB,
        "optimizer state": 2 * GIB,
        "batch": 1000,
        "gradients": GIB,
        "activations and gathered parameters": 3 * GIB,
    }
    assert plan(temporary_bytes=GIB // 2).memory()["activations and gathered parameters"] == 0


def test_without_a_prediction_nothing_is_made_up():
    for found in (plan(time=None), plan(**TOO_LARGE)):
        assert found.tokens_per_second is None and found.days is None and found.utilization(causal=True) is None
    assert plan(schedule_tokens=0).days is None and plan(peak_flops=0.0).utilization(causal=True) is None


def test_what_it_exceeds_by():
    assert plan(**TOO_LARGE).exceeds_bytes == 4 * GIB
    assert plan().exceeds_bytes == 0 and plan(**TOO_LARGE | {"needed_bytes": None}).exceeds_bytes == 0


@pytest.mark.parametrize("changes", [{}, {"time": None, "time_missing": "why"}, TOO_LARGE])
def test_json_and_back(changes):
    found = plan(**changes)
    assert Plan.of_json(json.loads(json.dumps(found.to_json()))) == found
