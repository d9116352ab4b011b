"""Two real processes train as one does, stop together when one of them is told to, and hand over to another number."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "training" / "small_job.py"
STEPS = 24
SPANS = [[3, 8], [21, 16]]  # batches of 8 rows, then of 16


def launch(directory: pathlib.Path, cache: pathlib.Path, *, devices: int, **settings) -> subprocess.Popen:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    settings |= {"directory": str(directory), "spans": SPANS, "mesh": {"fsdp": 4, "tensor": 2}}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(settings)], env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(*processes: subprocess.Popen, code: int) -> None:
    for process in processes:
        try:
            _, errors = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise
        assert process.returncode == code, errors[-3000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def trace(path: pathlib.Path) -> np.ndarray:
    return np.array([json.loads(line) for line in path.read_text().splitlines()])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_processes_are_as_one(tmp_path):
    cache = tmp_path / "compiled"
    finish(launch(tmp_path / "one", cache, devices=8, trace=str(tmp_path / "one.jsonl")), code=0)
    whole = trace(tmp_path / "one.jsonl")
    assert whole[:, 0].tolist() == list(range(1, STEPS + 1))

    port = free_port()
    pair = [
        launch(
            tmp_path / "two",
            cache,
            devices=4,
            processes=2,
            process=process,
            coordinator=f"localhost:{port}",
            trace=str(tmp_path / f"two-{process}.jsonl"),
            batch_log=str(tmp_path / f"batches-{process}.txt"),
            terminate_at=2 if process == 1 else 0,  # only one of them is told
            pause=0.3,
        )
        for process in (0, 1)
    ]
    finish(*pair, code=75)
    first, second = (trace(tmp_path / f"two-{process}.jsonl") for process in (0, 1))
    np.testing.assert_array_equal(first, second)
    stopped = len(first)
    assert 2 <= stopped < STEPS
    np.testing.assert_allclose(first, whole[:stopped], rtol=2e-5)
    logs = [(tmp_path / f"batches-{process}.txt").read_text() for process in (0, 1)]
    assert logs[0] != logs[1]  # each host reads its own half of every batch
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, stopped + 1))  # one process writes

    finish(launch(tmp_path / "two", cache, devices=8, trace=str(tmp_path / "rest.jsonl")), code=0)
    np.testing.assert_allclose(trace(tmp_path / "rest.jsonl"), whole[stopped:], rtol=2e-5)
