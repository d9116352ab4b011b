"""Killed at random places and started again, a run sees the same batches and writes the same numbers, bit for bit."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest

from seallm_jax.training.step_clock import StepClock

SCRIPT = pathlib.Path(__file__).parent.parent / "training" / "small_job.py"
STEPS, EVERY = 10, 3


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Runs the job in a process of its own with 4 emulated devices; returns the exit status."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }

    def run(directory: pathlib.Path, **settings) -> int:
        settings |= {
            "directory": str(directory / "run"),
            "steps": STEPS,
            "checkpoint_every": EVERY,
            "log_every": 2,
            "mesh": {"fsdp": 4},
            "accumulation": 2,
            "trace": str(directory / "trace.jsonl"),
            "batch_log": str(directory / "batches.txt"),
        }
        directory.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, str(SCRIPT), json.dumps(settings)], env=environment, capture_output=True, timeout=300
        )
        if done.returncode not in (0, 75, -signal.SIGKILL):
            pytest.fail(done.stderr.decode()[-3000:])
        return done.returncode

    return run


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    assert start(directory) == 0
    return directory


def trace(directory):
    return [json.loads(line) for line in (directory / "trace.jsonl").read_text().splitlines()]


def batches(directory):
    return set((directory / "batches.txt").read_text().splitlines())


def metrics(directory):
    lines = [json.loads(line) for line in (directory / "run" / "metrics.jsonl").read_text().splitlines()]
    timing = StepClock(flops={}, devices=1).figures()
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


def assert_same(directory, uninterrupted):
    whole = {entry[0]: entry for entry in trace(uninterrupted)}
    seen = trace(directory)
    assert {entry[0] for entry in seen} == set(range(1, STEPS + 1)) == set(whole)
    for entry in seen:  # steps that ran twice included
        assert entry == whole[entry[0]]
    assert batches(directory) == batches(uninterrupted) and len(batches(directory)) == 8 * STEPS
    assert metrics(directory) == metrics(uninterrupted)


def test_killed_twice_at_random_steps(start, uninterrupted, tmp_path):
    kills = random.randrange(2, 6), random.randrange(6, STEPS)
    print("killed after steps", kills)
    for kill_at in kills:
        assert start(tmp_path, kill_at=kill_at) == -signal.SIGKILL
    assert start(tmp_path) == 0
    assert_same(tmp_path, uninterrupted)


def test_sigterm_saves_and_exits_with_75(start, uninterrupted, tmp_path):
    assert start(tmp_path, terminate_at=4) == 75
    last = trace(tmp_path)[-1][0]
    assert 4 <= last <= 6
    assert (tmp_path / "run" / "checkpoints" / str(last)).is_dir()
    assert start(tmp_path) == 0
    assert len(trace(tmp_path)) == STEPS  # no step ran twice
    assert_same(tmp_path, uninterrupted)
