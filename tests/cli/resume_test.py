"""The same command resumes: killed at a random step, a run ends with the losses of one that was left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from tests.cli.conftest import arguments

MEASURED = ("step", "rows", "tokens", "loss", "loss_by_language", "learning_rate", "gradient_norm", "skipped_updates")


def metrics(workdir):
    lines = (workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()
    return [{key: json.loads(line)[key] for key in MEASURED} for line in lines]


def start(workdir) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    command = [sys.executable, "-m", "seallm_jax", *arguments("train", workdir, "--stage=pretrain")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, workdir, step: int) -> None:
    deadline = time.monotonic() + 240
    path = workdir / "pretrain" / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate()}")


@pytest.fixture(scope="module")
def expected(finished_run, tmp_path_factory):
    """Metrics of a run that nothing interrupts, in a process like those of the tests."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "work"
    shutil.copytree(finished_run, workdir)
    shutil.rmtree(workdir / "pretrain")
    process = start(workdir)
    _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
    return metrics(workdir)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_interrupted_training_ends_with_the_same_losses(finished_run, expected, tmp_path, how):
    workdir = tmp_path / "work"
    shutil.copytree(finished_run, workdir)
    shutil.rmtree(workdir / "pretrain")
    process = start(workdir)
    step = random.Random(os.urandom(8)).randrange(1, len(expected) - 1)
    wait_for_step(process, workdir, step)
    process.send_signal(how)
    _, log = process.communicate(timeout=240)
    if how == signal.SIGTERM and process.returncode == 75:
        assert "the same command continues" in log
    else:
        assert process.returncode in (-how, 0), log
    resumed = start(workdir)
    _, log = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, log
    assert metrics(workdir) == expected, f"killed after step {step}"
