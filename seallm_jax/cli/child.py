"""Runs a measurement in a process of its own, where nothing of an earlier one is left in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError


def run_child(module: str, task: str, request: Any, environment: Mapping[str, str]) -> Any:
    """`python -m MODULE TASK`, with `request` as JSON on standard input; returns the JSON of its last line.

    Args:
      environment: variables beside those of this process.

    Raises:
      SeallmError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, task],
        input=json.dumps(request),
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SeallmError(f"the process that measures {task!r} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
