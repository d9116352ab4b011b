"""Which errors tell of a process that is gone, and how a process ends that has lost one."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.training import lost_host

LOST = [
    "UNAVAILABLE: The following tasks are unhealthy",
    "FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer [::1]:4711",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited",
    "DEADLINE_EXCEEDED: Barrier timed out",
]
OWN = ["RESOURCE_EXHAUSTED: Out of memory while trying to allocate", "INVALID_ARGUMENT: shapes differ", ""]


class EndedError(Exception):
    """In place of the end of the process."""


@pytest.fixture
def several(monkeypatch):
    def end(reason):
        raise EndedError(reason)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(lost_host, "end_process", end)


@pytest.mark.parametrize("message", LOST)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_lost_connection_ends_the_process(several, message, wrapped):
    with pytest.raises(EndedError) as ended, lost_host.ending_with_other_hosts():
        try:
            raise jax.errors.JaxRuntimeError(f"{message}\nmore lines")
        except jax.errors.JaxRuntimeError as error:
            if wrapped:
                raise SeallmError("cannot finish a checkpoint") from error
            raise
    assert str(ended.value) == message


def test_what_jax_raises_on_the_host_counts(several):
    with pytest.raises(EndedError), lost_host.ending_with_other_hosts():
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:22212")
    with pytest.raises(ValueError, match="row 3"), lost_host.ending_with_other_hosts():
        raise ValueError("row 3: connection closed")


@pytest.mark.parametrize("message", OWN)
def test_an_error_of_its_own_stays_one(several, message):
    with pytest.raises(jax.errors.JaxRuntimeError), lost_host.ending_with_other_hosts():
        raise jax.errors.JaxRuntimeError(message)
    with pytest.raises(SeallmError), lost_host.ending_with_other_hosts():
        raise SeallmError("connection closed, says a user's file")


@pytest.mark.parametrize("message", LOST)
def test_one_process_has_nobody_to_lose(message):
    with pytest.raises(jax.errors.JaxRuntimeError), lost_host.ending_with_other_hosts():
        raise jax.errors.JaxRuntimeError(message)


@pytest.mark.skipif(sys.platform != "linux", reason="abort() is caught for the runtime of Linux machines")
def test_abort_is_one_line_and_a_status_of_its_own():
    script = "import os; from seallm_jax.training.lost_host import *; print('said', end=''); abort_is_a_lost_host(); "
    done = subprocess.run(
        [sys.executable, "-c", script + "os.abort()"],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (lost_host.EXIT_LOST_HOST, "said")
    (line,) = done.stderr.splitlines()
    assert line.startswith("seallm: error: lost host: ") and line.endswith("continues from the last checkpoint")
