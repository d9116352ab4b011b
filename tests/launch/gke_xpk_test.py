"""launch/gke_xpk.sh against an xpk that starts the pods as local processes."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from tests.launch.fake_venv import ROOT, fake_venv, script
from tests.launch.node_test import free_ports

BASE = ("--name=sea", "--cluster=c", "--zone=z")
OPTIONS = (*BASE, "--type=v6e-8", "--image=i:1", "--storage=s", "--shared=/share")
WORDS = ("--", "--config=configs/quickstart.py", "--config.name=a b")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pods are Linux machines")


@pytest.fixture
def gke(tmp_path):
    """Calls launch/gke_xpk.sh with a fake xpk, docker and kubectl on the PATH."""
    tools = tmp_path / "tools"
    fake = f'exec {sys.executable} {pathlib.Path(__file__).with_name("fake_xpk.py")} ${{0##*/}} "$@"'
    for name in ("xpk", "docker", "kubectl"):
        script(tools / name, fake)
    fake_venv(tmp_path / "venv", extra="tpu")
    paths = {"RECORD": str(tmp_path), "VENV": str(tmp_path / "venv"), "PATH": f"{tools}:{os.environ['PATH']}"}
    paths["JAX_COORDINATOR_PORT"] = str(free_ports())

    def call(*words: str, fates: str = "") -> subprocess.CompletedProcess:
        environment = os.environ | paths | {"FATES": fates, "JAX_PLATFORMS": ""}
        command = [str(ROOT / "launch" / "gke_xpk.sh"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    return call


def calls(path):
    return [" ".join(json.loads(line)) for line in (path / "calls.jsonl").read_text().splitlines()]


def test_a_run_is_built_queued_waited_for_and_deleted(gke, tmp_path):
    done = gke("run", *OPTIONS, "--slices=2", "--spot", "--attempts=3", *WORDS)
    assert done.returncode == 0, done.stderr
    build, push, create, wait, delete = calls(tmp_path)
    assert build.startswith("docker build ") and "--build-arg=EXTRA=tpu --tag=i:1 ." in build
    assert push == "docker push i:1"
    place = "--cluster=c --zone=z"
    assert create.startswith(f"xpk workload create --workload=sea {place} --tpu-type=v6e-8 --num-slices=2 ")
    assert " --spot --max-restarts=2 --restart-on-exit-codes=69,75 " in create
    assert wait == f"xpk workload list {place} --wait-for-job-completion=sea"
    assert delete == f"xpk workload delete --workload=sea {place}"
    words = (tmp_path / "words").read_text()
    assert words.count(" --num_processes=4 ") == 8
    assert words.startswith(
        "0/1 cpu run --stages=corpus --workdir=/share/runs/sea --config=configs/quickstart.py --config.name=a b\n"
    )


@pytest.mark.parametrize("fate", ["75", "killed"])
def test_an_interrupted_run_is_started_again(gke, tmp_path, fate):
    done = gke("run", *OPTIONS, "--keep", *WORDS, fates=f"{fate} 0")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().count("--stages=corpus") == 2
    assert (tmp_path / "workload").exists()


def test_a_failure_of_the_program_is_not_repeated(gke, tmp_path):
    done = gke("run", *OPTIONS, *WORDS, fates="1")
    assert done.returncode == 125 and "it is kept: see" in done.stderr
    assert (tmp_path / "words").read_text().count("--stages=corpus") == 1


def test_attempts_are_counted(gke, tmp_path):
    assert gke("run", *OPTIONS, "--attempts=2", *WORDS, fates="75 75 75").returncode == 125
    assert (tmp_path / "words").read_text().count("--stages=corpus") == 2


def test_a_dry_run_prints_every_command_and_calls_nothing(gke, tmp_path):
    done = gke("run", *OPTIONS, "--dry-run", *WORDS)
    assert done.returncode == 0 and not (tmp_path / "calls.jsonl").exists()
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [words[:3] for words in printed[2:]] == [["xpk", "workload", word] for word in ("create", "list", "delete")]
    command = next(word for word in printed[2] if word.startswith("--command=")).removeprefix("--command=")
    assert shlex.split(command)[-1] == "--config.name=a b"


def test_nodes_with_gpus(gke):
    done = gke("create", *OPTIONS[:3], "--type=h100-80gb-8", "--slices=4", *OPTIONS[4:], "--dry-run", *WORDS)
    assert "--device-type=h100-80gb-8 --num-nodes=4 " in done.stdout and "node.sh cuda " in done.stdout


@pytest.mark.parametrize(
    ("words", "called"),
    [("logs", "kubectl logs --selector=xpk.google.com/workload=sea"), ("status", "xpk workload list"),
     ("delete", "xpk workload delete --workload=sea")],
)  # fmt: skip
def test_single_actions(gke, words, called):
    assert gke(words, *BASE, "--dry-run").stdout.startswith(called)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run", *OPTIONS[1:]), "--name=''"),
        (("run", "--name=sea-", *OPTIONS[1:]), "--name='sea-'"),
        (("run", "--name=sea", "--zone=z"), "--cluster=NAME"),
        (("run", *BASE, "--type=v6e-8"), "--image=IMAGE"),
        (("create", *BASE, "--type=v6e-8", "--image=i"), "--storage=NAME"),
        (("run", *OPTIONS, "--slices=0"), "--slices=0"),
        (("run", *OPTIONS, "--priority=urgent"), "--priority=urgent"),
        (("run", *OPTIONS, "--speed=9"), "--speed=9"),
        (("fly", *OPTIONS), "run, image, create"),
    ],
)
def test_mistakes_are_named(gke, tmp_path, words, named):
    done = gke(*words)
    assert done.returncode == 2 and named in done.stderr.splitlines()[-1]
    assert not (tmp_path / "calls.jsonl").exists()


def test_the_image_has_all_that_a_node_runs():
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "launch" / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"setup.py", "README.md", "seallm_jax", "configs", "launch"} <= set(names)
    assert all((ROOT / name).exists() for name in names)
