"""Options of tests/planning/named_models_test.py; and small programs, compiled for TPUs by one child process."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from seallm_jax.planning.libtpu_environment import LIBTPU_ENVIRONMENT
from tests.planning.compile_programs import CANNOT_READ


def pytest_addoption(parser):
    group = parser.getgroup("named models")
    group.addoption("--named-models", default="quick", metavar="quick|all|NAME,...", help="what to compile")
    group.addoption("--update-golden", action="store_true", help="write what was found instead of comparing it")


@pytest.fixture(scope="session")
def tpu_programs(tmp_path_factory) -> dict[str, str]:
    """Texts of the programs of `compile_programs.py` by name."""
    pytest.importorskip("libtpu")
    folder = tmp_path_factory.mktemp("programs")
    script = pathlib.Path(__file__).parent / "compile_programs.py"
    child = subprocess.run([sys.executable, str(script), str(folder)], env=os.environ | LIBTPU_ENVIRONMENT)
    if child.returncode == CANNOT_READ:
        pytest.skip("this version of JAX cannot read the programs that libtpu made")
    child.check_returncode()
    return {path.name: path.read_text() for path in folder.iterdir()}
