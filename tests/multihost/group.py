"""Processes that train one small job together on emulated devices; see tests/training/small_job.py."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np

SCRIPT = pathlib.Path(__file__).parent.parent / "training" / "small_job.py"


class Group:
    """Starts the processes.

    What they say goes to `DIRECTORY-I.err`, a line per step to `DIRECTORY-I.trace`.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        cache: pathlib.Path,
        *,
        processes: int = 1,
        devices: int = 8,
        only: dict[int, dict[str, Any]] | None = None,
        **settings: Any,
    ):
        """
        Args:
          directory: of the job.
          cache: keeps compiled programs.
          processes: how many.
          devices: of all of them.
          only: process -> settings of that one alone.
          settings: fields of `small_job.Settings`.
        """
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // processes}",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        directory.parent.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.started = time.monotonic()
        mesh = {"fsdp": 4, "tensor": 2} if devices == 8 else {"fsdp": devices}
        settings = {"directory": str(directory), "mesh": mesh} | settings
        settings |= {"processes": processes, "coordinator": f"localhost:{free_port()}"}
        self.processes: list[subprocess.Popen] = []
        for process in range(processes):
            own = settings | {"process": process, "trace": str(self._path(process, "trace"))}
            own |= (only or {}).get(process, {})
            with open(self._path(process, "err"), "w") as errors:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, str(SCRIPT), json.dumps(own)],
                        env=environment,
                        stdout=subprocess.DEVNULL,  # Gloo's
                        stderr=errors,
                    )
                )

    def _path(self, process: int, kind: str) -> pathlib.Path:
        return self._directory.with_name(f"{self._directory.name}-{process}.{kind}")

    def send(self, process: int, signum: signal.Signals) -> None:
        """A signal to one of them."""
        self.processes[process].send_signal(signum)

    def wait(self, timeout: float = 900) -> list[int]:
        """Exit statuses; none is left running."""
        try:
            for process in self.processes:
                process.wait(max(0.0, self.started + timeout - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
        return [process.wait() for process in self.processes]

    def errors(self, process: int) -> str:
        """What one of them said on stderr."""
        return self._path(process, "err").read_text()

    def trace(self, process: int = 0) -> np.ndarray:
        """[steps, 4], of all starts: step, loss, gradient norm, tokens."""
        path = self._path(process, "trace")
        return np.array([json.loads(line) for line in path.read_text().splitlines()] if path.exists() else [])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
