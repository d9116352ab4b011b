"""launch/slurm.sbatch against a Slurm whose tasks are local processes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.launch.fake_venv import ROOT, fake_venv, script

NODES = ("--nodes=2", "--gpus-per-node=2")
WORDS = ("--config=configs/quickstart.py", "--workdir=/shared/a run")
ALONE = (
    "--config.mesh.slices=0 --config.mesh.data=1 --config.mesh.fsdp=-1 --config.mesh.context=1 --config.mesh.tensor=1"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm's nodes are Linux machines")


@pytest.fixture
def slurm(tmp_path):
    """Calls a program with a fake Slurm on the PATH."""
    tools = tmp_path / "tools"
    for name in ("sbatch", "srun", "scontrol"):
        script(tools / name, f'exec {sys.executable} {pathlib.Path(__file__).with_name("fake_slurm.py")} {name} "$@"')
    fake_venv(tmp_path / "venv", extra="cuda")
    paths = {"RECORD": str(tmp_path), "VENV": str(tmp_path / "venv"), "PATH": f"{tools}:{os.environ['PATH']}"}

    def call(*command: str, fates: str = "", cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
        environment = os.environ | paths | {"FATES": fates, "JAX_PLATFORMS": ""}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)

    return call


def submit(slurm, *words, options=NODES, **settings):
    return slurm("sbatch", *options, "launch/slurm.sbatch", *words, **settings)


def lines(path):
    return path.read_text().splitlines()


def test_stages_run_in_order_on_as_many_processes_as_they_need(slurm, tmp_path):
    done = submit(slurm, *WORDS)
    assert done.returncode == 0, done.stderr
    words = " ".join(WORDS)
    everywhere = [
        [f"{i}/4 devices train --cluster{stage} {words}" for i in range(4)] for stage in (" --stage=base", "")
    ]
    found = lines(tmp_path / "words")
    assert found[0] == f"0/1 cpu run --stages=corpus {words}"
    assert sorted(found[1:5]) == everywhere[0]
    assert found[5] == f"0/1 cpu run --stages=vocab,pack,mixture {words} {ALONE}"
    assert sorted(found[6:10]) == everywhere[1]
    assert found[10:] == [f"0/1 devices run --stages=evaluate,generate,export,report {words} {ALONE}"]
    assert "the run is complete" in done.stderr


@pytest.mark.parametrize("fate", ["75", "killed", "told"])
def test_an_interrupted_run_goes_back_to_the_queue_and_on(slurm, tmp_path, fate):
    done = submit(slurm, *WORDS, fates=f"{fate} 0")
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "calls").count("scontrol requeue 7") == 1
    assert sum("train --cluster --config" in line for line in lines(tmp_path / "words")) == 8
    assert f"interrupted (status {137 if fate == 'killed' else 75})" in done.stderr


def test_attempts_are_counted(slurm, tmp_path):
    done = submit(slurm, "--attempts=2", *WORDS, fates="75 75 75")
    assert done.returncode == 75 and "gave up after 2 attempts" in done.stderr
    assert lines(tmp_path / "calls").count("scontrol requeue 7") == 1


def test_a_failure_of_the_program_is_not_repeated(slurm, tmp_path):
    done = submit(slurm, *WORDS, fates="1")
    assert done.returncode == 1 and "failed with status 1" in done.stderr
    assert not any(line.startswith("scontrol") for line in lines(tmp_path / "calls"))
    assert not any("export" in line for line in lines(tmp_path / "words"))


def test_a_dry_run_needs_no_job_and_calls_nothing(slurm, tmp_path):
    done = slurm("bash", "launch/slurm.sbatch", "--dry-run", *WORDS)
    assert done.returncode == 0 and not (tmp_path / "calls").exists()
    printed = done.stdout.splitlines()
    assert len(printed) == 5 and printed[0].startswith("env JAX_PLATFORMS=cpu srun --export=ALL --nodes=1 --ntasks=1 ")
    assert "--ntasks=8 --ntasks-per-node=8 --cpus-per-task=1" in printed[3]
    assert printed[3].endswith(f"/bin/seallm train --cluster {WORDS[0]} '{WORDS[1]}'")


@pytest.mark.parametrize(
    ("options", "words", "named"),
    [
        (NODES, ("--attempts=0", *WORDS), "--attempts=0: a positive number"),
        (NODES, ("--workdir=/shared",), "--config=FILE"),
        (("--nodes=2",), WORDS, "--gpus-per-node=N"),
        ((*NODES, "--gpus-per-task=1"), WORDS, "--gpus-per-task hides GPUs"),
    ],
)
def test_mistakes_are_named(slurm, tmp_path, options, words, named):
    done = submit(slurm, *words, options=options)
    assert done.returncode == 2 and named in done.stderr.splitlines()[-1]
    assert not (tmp_path / "words").exists()


def test_a_job_from_elsewhere_is_refused(slurm, tmp_path):
    done = slurm("sbatch", *NODES, str(ROOT / "launch" / "slurm.sbatch"), *WORDS, cwd=tmp_path)
    assert done.returncode == 2 and "submit it in the repository's root" in done.stderr
