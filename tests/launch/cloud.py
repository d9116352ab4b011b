"""A directory that looks like a Cloud TPU project to launch/tpu_pod.sh; see fake_gcloud.py."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
EXTRAS_STAMP = "installed-__tpu_"


class FakeCloud:
    """Workers are local processes; `seallm` on them is `program`.

    Attributes:
      shared: what the workers mount.
    """

    def __init__(self, directory: pathlib.Path, *, workers: int, program: str, **settings: Any):
        self._directory = directory
        self.shared = directory / "shared"
        tools, venv = directory / "tools", directory / "venv"
        for made in (self.shared, tools, venv / "bin"):
            made.mkdir(parents=True)
        fake = pathlib.Path(__file__).with_name("fake_gcloud.py")
        script(tools / "gcloud", f'exec {sys.executable} {fake} "$@"')
        script(tools / "mountpoint", "exit 0")
        script(venv / "bin" / "seallm", program)
        script(venv / "bin" / "python", "echo nothing is installed here >&2; exit 1")
        (venv / EXTRAS_STAMP).touch()
        os.utime(venv / EXTRAS_STAMP, (2**32, 2**32))  # newer than any setup.py: nothing is installed
        environment = settings.pop("environment", {})
        environment |= {"VENV": str(venv), "SHARED": str(self.shared)}
        (directory / "cloud.json").write_text(json.dumps({"workers": workers, "environment": environment} | settings))
        self._environment = os.environ | {"FAKE_CLOUD": str(directory), "PATH": f"{tools}:{os.environ['PATH']}"}

    def pod(self, action: str, *options: str, timeout: float = 120) -> subprocess.CompletedProcess:
        """Calls launch/tpu_pod.sh."""
        command = [str(ROOT / "launch" / "tpu_pod.sh"), action, "--name=sea", "--zone=z", "--poll=0", *options]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=timeout)

    @property
    def calls(self) -> list[str]:
        """What gcloud was called for, in order: `create`, `ssh 0 prepare`, `ssh all train` ..."""
        found = []
        for line in (self._directory / "calls.jsonl").read_text().splitlines():
            words = json.loads(line)
            values = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
            parts = values.get("command", "").split("tpu_worker.sh ")
            action = [values["worker"], parts[-1].split()[0]] if words[3] == "ssh" else []
            found.append(" ".join([words[3], *action]))
        return found

    @property
    def exists(self) -> bool:
        """Whether the queued resource is there."""
        return (self._directory / "state").exists()


def script(path: pathlib.Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
