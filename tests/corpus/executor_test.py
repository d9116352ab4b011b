"""The pipeline on one process, on several, and on Slurm and Ray: the same documents, and no task is lost."""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from seallm_jax.core.corpus_config import ExecutionConfig
from seallm_jax.core.corpus_files import corpus_languages
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import CorpusConfig
from seallm_jax.corpus import ray_executor
from seallm_jax.corpus.clean_phase import CleanPhase
from seallm_jax.corpus.executor import run_phases
from seallm_jax.corpus.pipeline import build_corpus
from seallm_jax.corpus.plan import Plan
from seallm_jax.corpus.reader import find_files
from seallm_jax.corpus.sign_phase import SignPhase


def build(source: pathlib.Path, output: pathlib.Path, **execution) -> dict[str, set[str]]:
    """The lines of each kind of output."""
    config = CorpusConfig(path=str(source), holdout_fraction=0.1, execution=ExecutionConfig(**execution))
    report = build_corpus(config, output, seed=3, progress=Progress.silent())
    lines = {
        kind: [line for path in sorted(output.glob(pattern)) for line in path.read_text().splitlines()]
        for kind, pattern in (("train", "train/*"), ("heldout", "heldout/*"), ("dropped", "dropped*.jsonl"))
    }
    counts = report.counts.values()
    assert len(lines["train"]) == sum(c.train_documents for c in counts)
    assert len(lines["heldout"]) == sum(c.heldout_documents for c in counts)
    assert len(lines["dropped"]) == sum(c.dropped.total() for c in counts)
    return {kind: set(found) for kind, found in lines.items()} | {"report": {str(report.to_json())}}


@pytest.mark.parametrize(("tasks", "workers"), [(2, 2), (5, 1), (50, 3)])
def test_documents_do_not_depend_on_tasks_and_workers(messy_corpus, tmp_path, tasks, workers):
    one = build(messy_corpus, tmp_path / "one")
    assert {"exact duplicate", "near duplicate", "invalid UTF-8", "invalid JSON", "too short"} <= {
        line.split('"reason": "')[1].split('"')[0] for line in one["dropped"]
    }
    assert build(messy_corpus, tmp_path / "several", tasks=tasks, workers=workers) == one


class Killed(CleanPhase):
    """Task 1 is killed the first time, as by the kernel when memory runs out."""

    def process(self, task: int) -> None:
        marker = self.plan.work / "killed"
        if task == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().process(task)


def test_a_killed_worker_is_an_error_and_a_rerun_continues(messy_corpus, tmp_path):
    config = CorpusConfig(path=str(messy_corpus))
    plan = Plan(tmp_path / "work", tuple(find_files(config.path)), config, 0, tasks=3)
    plan.work.mkdir()
    phase, execution = Killed(plan), ExecutionConfig(tasks=3, workers=2)
    with pytest.raises(SeallmError, match=r"a worker process was killed .* of 3 tasks are left: run again"):
        run_phases([phase], execution, Progress.silent())
    run_phases([phase], execution, Progress.silent())
    assert phase.num_done == 3 and all(path.exists() for path in plan.units("clean", ".json"))


def fake_slurm(directory: pathlib.Path) -> None:
    """sbatch, srun and scontrol that run job arrays on this machine, in the background and in order of dependency."""
    sbatch = f"""\
        #!{sys.executable}
        import os, pathlib, subprocess, sys, time
        home = pathlib.Path(__file__).parent / "jobs"
        home.mkdir(exist_ok=True)
        script = pathlib.Path(sys.argv[-1]).read_text()
        options = dict(
            (line.removeprefix("#SBATCH --") + "=").split("=")[:2]
            for line in script.splitlines() if line.startswith("#SBATCH")
        )
        assert all(options[key] for key in ("time", "job-name", "output", "mem-per-cpu")), options
        job = str(len(list(home.glob("*.sh"))) + 1)
        (home / f"{{job}}.sh").write_text(script)
        needs = [a.split("afterok:")[1] for a in sys.argv if a.startswith("--dependency=")]
        (home / f"{{job}}.needs").write_text(" ".join(needs))
        child = os.fork()
        if not child:
            for stream in (0, 1, 2):
                os.close(stream)
            os.open(os.devnull, os.O_RDWR), os.dup(0), os.dup(0)
            for other in needs:
                while not (home / f"{{other}}.rc").exists():
                    time.sleep(0.05)
            failed = any((home / f"{{other}}.rc").read_text() != "0" for other in needs)
            last = int(options["array"].partition("-")[2].partition("%")[0])
            for index in range(0 if failed else last + 1):
                log = options["output"].replace("%A", job).replace("%a", str(index))
                environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(index), "SLURM_NODELIST": "here"}}
                with open(log, "wb") as file:
                    code = subprocess.run(
                        ["bash", home / f"{{job}}.sh"], env=environment, stdout=file, stderr=file
                    ).returncode
                failed = failed or code != 0
            (home / f"{{job}}.part").write_text(str(int(failed)))
            os.replace(home / f"{{job}}.part", home / f"{{job}}.rc")
            os._exit(0)
        print("Submitted batch job", job, flush=True)
        if "wait" in options:
            while not (home / f"{{job}}.rc").exists():
                time.sleep(0.05)
            sys.exit(int((home / f"{{job}}.rc").read_text()))
    """
    for name, text in {
        "sbatch": textwrap.dedent(sbatch),
        "srun": '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n',
        "scontrol": "#!/bin/bash\necho here\n",
    }.items():
        (directory / name).write_text(text)
        (directory / name).chmod(stat.S_IRWXU)


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> pathlib.Path:
    directory = tmp_path / "slurm"
    directory.mkdir()
    fake_slurm(directory)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    return directory


def test_slurm_gives_the_same_documents(messy_corpus, tmp_path, slurm):
    one = build(messy_corpus, tmp_path / "one")
    assert build(messy_corpus, tmp_path / "several", executor="slurm", tasks=2, slurm={"account": "nlp"}) == one
    jobs = sorted((slurm / "jobs").glob("*.sh"))
    assert [(slurm / "jobs" / f"{path.stem}.needs").read_text() for path in jobs] == ["", "1", "2", "3"]
    assert "#SBATCH --array=0-1" in jobs[0].read_text() and "#SBATCH --account=nlp" in jobs[0].read_text()
    assert "--partition" not in jobs[0].read_text()


def test_a_failing_slurm_job_is_one_line_and_stops_what_depends_on_it(messy_corpus, tmp_path, slurm):
    lost = messy_corpus / "part4.jsonl"
    content = lost.read_bytes()
    config = CorpusConfig(path=str(messy_corpus))
    files = tuple(find_files(config.path))
    lost.unlink()  # between the plan and the job
    plan = Plan(tmp_path / "work", files, config, 0, tasks=2)
    plan.work.mkdir()
    execution = ExecutionConfig(executor="slurm", tasks=2)
    with pytest.raises(
        SeallmError, match=r"1 of 2 tasks of reading .* on Slurm: .*part4\.jsonl has disappeared"
    ) as error:
        run_phases([CleanPhase(plan), SignPhase(plan)], execution, Progress.silent())
    assert "\n" not in str(error.value)
    assert not (plan.work / "sign").exists()
    lost.write_bytes(content)
    run_phases([CleanPhase(plan), SignPhase(plan)], execution, Progress.silent())
    assert len(list((plan.work / "sign").glob("*.npz"))) == 6


def test_slurm_and_ray_that_are_not_here_are_one_line(messy_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SeallmError, match="needs Slurm's sbatch"):
        build(messy_corpus, tmp_path / "out", executor="slurm")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SeallmError, match=r"pip install 'seallm_jax\[ray\]'"):
        build(messy_corpus, tmp_path / "out", executor="ray")


def test_the_ray_executor_is_made_as_asked(messy_corpus, tmp_path):
    """Construction only: what Ray does with it is tested where Ray is installed."""
    config = CorpusConfig(path=str(messy_corpus))
    plan = Plan(tmp_path, tuple(find_files(config.path)), config, 0, tasks=3)
    executor = ray_executor.make_executor(CleanPhase(plan), ExecutionConfig("ray", tasks=3, workers=2, memory_gb=5))
    assert (executor.world_size, executor.workers, executor.mem_per_cpu_gb) == (3, 2, 5)
    assert executor.get_incomplete_ranks() == [0, 1, 2]


def test_ray_gives_the_same_documents(messy_corpus, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        several = build(messy_corpus, tmp_path / "several", executor="ray", tasks=2, memory_gb=1)
    finally:
        ray.shutdown()
    assert several == build(messy_corpus, tmp_path / "one")


def test_datatrove_is_silent(messy_corpus, tmp_path):
    script = (
        "from tests.corpus.executor_test import build; import pathlib, sys\n"
        "if __name__ == '__main__': build(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), tasks=2, workers=2)"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py"), str(messy_corpus), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert corpus_languages(tmp_path / "out" / "train") == ["id", "jv", "km", "th"]
