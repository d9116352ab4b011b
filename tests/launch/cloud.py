"""A directory that looks like a Cloud TPU project to launch/tpu_pod.sh; see fake_gcloud.py."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.launch.fake_venv import ROOT, fake_venv, script


class FakeCloud:
    """Workers are local processes; `seallm` on them is `program`.

    Attributes:
      shared: what the workers mount.
    """

    def __init__(self, directory: pathlib.Path, *, workers: int, program: str, **settings: Any):
        self._directory = directory
        self.shared = directory / "shared"
        tools, venv = directory / "tools", directory / "venv"
        self.shared.mkdir(parents=True)
        fake = pathlib.Path(__file__).with_name("fake_gcloud.py")
        script(tools / "gcloud", f'exec {sys.executable} {fake} "$@"')
        script(tools / "mountpoint", "exit 0")
        fake_venv(venv, extra="tpu", program=program)
        environment = settings.pop("environment", {})
        environment |= {"VENV": str(venv), "SHARED": str(self.shared)}
        (directory / "cloud.json").write_text(json.dumps({"workers": workers, "environment": environment} | settings))
        self._environment = os.environ | {"FAKE_CLOUD": str(directory), "PATH": f"{tools}:{os.environ['PATH']}"}

    def pod(self, action: str, *options: str, timeout: float = 120) -> subprocess.CompletedProcess:
        """Calls launch/tpu_pod.sh."""
        command = self._command(action, *options)
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=timeout)

    def begin(self, action: str, *options: str) -> subprocess.Popen:
        """Calls it in a session of its own, and does not wait."""
        command = self._command(action, *options)
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL, start_new_session=True)

    def _command(self, action: str, *options: str) -> list[str]:
        return [str(ROOT / "launch" / "tpu_pod.sh"), action, "--name=sea", "--zone=z", "--poll=0", *options]

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
