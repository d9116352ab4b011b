"""Small programs, compiled for TPUs by one child process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from seallm_jax.planning.libtpu_environment import LIBTPU_ENVIRONMENT


@pytest.fixture(scope="session")
def tpu_programs(tmp_path_factory) -> dict[str, str]:
    """Texts of the programs of `compile_programs.py` by name."""
    pytest.importorskip("libtpu")
    folder = tmp_path_factory.mktemp("programs")
    script = pathlib.Path(__file__).parent / "compile_programs.py"
    child = subprocess.run([sys.executable, str(script), str(folder)], env=os.environ | LIBTPU_ENVIRONMENT)
    child.check_returncode()
    return {path.name: path.read_text() for path in folder.iterdir()}
