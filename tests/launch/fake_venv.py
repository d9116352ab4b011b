"""A virtual environment in which nothing is installed but a `seallm` of the test's own."""

from __future__ import annotations

import os
import pathlib
import stat
import sys

ROOT = pathlib.Path(__file__).parents[2]
STAND_IN = pathlib.Path(__file__).with_name("fake_seallm.py")


def script(path: pathlib.Path, body: str) -> None:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def fake_venv(directory: pathlib.Path, *, extra: str, program: str = f'exec {sys.executable} {STAND_IN} "$@"') -> None:
    """Makes it, with `.[extra]` installed as launch/environment.sh sees it. `program` is what `seallm` does."""
    script(directory / "bin" / "seallm", program)
    script(directory / "bin" / "python", "echo nothing is installed here >&2; exit 1")
    stamp = directory / f"installed-__{extra}_"
    stamp.touch()
    os.utime(stamp, (2**32, 2**32))  # newer than any setup.py: nothing is installed
