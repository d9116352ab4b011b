"""launch/skypilot.yaml: its scripts on local nodes, with the variables that SkyPilot sets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from tests.launch.fake_venv import ROOT, STAND_IN, script
from tests.launch.node_test import free_ports, skypilot

ARGUMENTS = "--config=configs/quickstart.py '--config.name=a b'"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the nodes are Linux machines")


@pytest.fixture
def task():
    return yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())


@pytest.fixture
def node(tmp_path):
    """Runs a script in a copy of the working directory, as node `number` of two."""
    workdir = tmp_path / "sky_workdir"
    workdir.mkdir()
    for name in ("launch", "setup.py"):
        (workdir / name).symlink_to(ROOT / name)
    script(tmp_path / "tools" / "uv", 'echo "uv $@" >>"$RECORD/installed"; cp -r "$RECORD/venv" .venv')
    script(tmp_path / "venv" / "bin" / "python", 'echo "python $@" >>"$RECORD/installed"')
    script(tmp_path / "venv" / "bin" / "seallm", f'exec {sys.executable} {STAND_IN} "$@"')
    variables = {"RECORD": str(tmp_path), "PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}"}
    variables["JAX_COORDINATOR_PORT"] = str(free_ports())

    def start(text, number=0, **environment):
        environment = os.environ | variables | skypilot(number, 2) | environment
        environment.pop("VENV", None)
        return subprocess.Popen(["bash", "-c", text], cwd=workdir, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def test_the_task_is_what_its_head_says(task):
    assert set(task) == {"name", "num_nodes", "resources", "envs", "workdir", "file_mounts", "setup", "run"}
    assert task["envs"] == {"BUCKET": None, "RUN": "seallm", "ARGUMENTS": "--config=configs/quickstart.py"}
    assert task["file_mounts"] == {"/shared": {"name": "${BUCKET}", "mode": "MOUNT"}}
    assert task["resources"]["use_spot"] and task["resources"]["job_recovery"]["recover_on_exit_codes"] == [69, 75]


def test_nodes_are_set_up_once_and_do_the_run(tmp_path, task, node):
    for _ in range(2):
        assert node(task["setup"]).wait(timeout=120) == 0
    uv, pip = (tmp_path / "installed").read_text().splitlines()
    assert uv == "uv venv --seed --python=3.12 .venv"
    assert pip.startswith("python -m pip install") and pip.endswith("--editable .[cuda]")
    nodes = [node(task["run"], number, RUN="sea", ARGUMENTS=ARGUMENTS) for number in range(2)]
    assert [process.wait(timeout=120) for process in nodes] == [0, 0]
    words = (tmp_path / "words").read_text().splitlines()
    assert len(words) == 7
    assert all("--workdir=/shared/runs/sea --config=configs/quickstart.py --config.name=a b" in line for line in words)


def test_a_stopped_run_ends_with_a_status_that_is_recovered(task, node):
    assert node(task["setup"]).wait(timeout=120) == 0
    nodes = [node(task["run"], number, FATES="75") for number in range(2)]
    assert [process.wait(timeout=120) for process in nodes] == [75, 75]
