"""Speed, use of the devices and time lost, on a clock of the test's own."""

from __future__ import annotations

import types

import numpy as np
import pytest

from seallm_jax.core.peak_flops import peak_flops
from seallm_jax.training import step_clock
from seallm_jax.training.step_clock import StepClock


@pytest.fixture
def clock(monkeypatch):
    """now(seconds) lets time pass."""
    now = [100.0]
    fake = types.SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0] + 1e9)
    monkeypatch.setattr(step_clock, "time", fake)

    def wait(seconds):
        now[0] += seconds

    return wait


def device(kind="TPU v5 lite", memory=None):
    return types.SimpleNamespace(device_kind=kind, memory_stats=lambda: memory)


def test_rates_spread_and_use_are_of_the_steps_since_the_last_line(clock):
    memory = {"peak_bytes_in_use": 7, "bytes_limit": 9, "num_allocs": 3}
    times = StepClock(flops={"full": 197e12 / 2, "causal": 98.5e12 / 2}, devices=4, device=device(memory=memory))
    clock(60)  # compiles
    times.tick(1000, 2)
    durations = [1.0, 2.0, 3.0, 4.0]
    for duration in durations:
        clock(duration)
        times.tick(1000, 2)
    assert times.tokens_per_second == 400
    figures = times.figures()
    assert figures["tokens_per_second"] == 400 and figures["tokens_per_second_per_device"] == 100
    assert figures["step_seconds"] == {"p50": np.median(durations), "p95": np.percentile(durations, 95)}
    assert figures["mfu"] == {"full": pytest.approx(0.4 / 4), "causal": pytest.approx(0.2 / 4)}
    assert figures["tflops_per_device"]["full"] == pytest.approx(197 / 10)
    assert figures["memory"] == {"peak": 7, "limit": 9}
    assert figures["goodput"] == pytest.approx(10 / 70) and figures["seconds"] == 70
    clock(0.5)
    times.tick(1000, 2)
    assert times.figures()["tokens_per_second"] == 2000


def test_a_device_that_is_not_known_has_no_utilisation(clock):
    times = StepClock(flops={"full": 0.5e12}, devices=1, device=device("cpu"))
    for _ in range(2):
        clock(1)
        times.tick(1, 2)
    figures = times.figures()
    assert figures["mfu"] == {} and figures["memory"] == {} and figures["tflops_per_device"] == {"full": 1.0}
    assert times.figures()["step_seconds"] == {}  # nothing since


def test_goodput_counts_what_interruptions_and_rollbacks_took(clock):
    first = StepClock(flops={}, devices=1)
    for _ in range(5):
        clock(10)
        first.tick(1, 2)
    saved = first.state()
    assert first.figures()["goodput"] == 40 / 50
    clock(30)  # lost: it never came to a checkpoint
    clock(20)  # nobody was there
    second = StepClock(flops={}, devices=1, restored=saved)
    clock(10)
    second.tick(1, 2)
    clock(10)
    second.tick(1, 2)
    clock(5)
    second.resume()  # a checkpoint
    clock(10)
    second.tick(1, 2)
    assert second.figures()["goodput"] == pytest.approx((40 + 20) / (50 + 50 + 35))
    assert second.seconds == 50 + 35
    second.roll_back(saved)
    assert second.figures()["goodput"] == pytest.approx(40 / 135)


def test_peaks_go_by_the_longest_name():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5") == 459e12 and peak_flops("TPU v5p") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12 and peak_flops("cpu") is None
