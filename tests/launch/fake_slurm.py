"""Stands in for Slurm: `sbatch` runs a job at once, and again each time it is requeued; tasks are local processes.

RECORD is the directory of fake_seallm.py. When all tasks of a step wait to be told to stop, the job's time is nearly
up: they get the signal that the job asked for, as its steps alone do.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

RECORD = pathlib.Path(os.environ["RECORD"])
CPUS = 8


def main(program: str, words: list[str]) -> int:
    with open(RECORD / "calls", "a") as calls:
        calls.write(f"{program} {' '.join(words)}\n")
    return {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[program](words)


def split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options before the first word that is none, and the rest."""
    length = next(index for index, word in enumerate(words) if not word.startswith("--"))
    return dict(word[2:].partition("=")[::2] for word in words[:length]), words[length:]


def sbatch(words: list[str]) -> int:
    given, [path, *arguments] = split(words)
    lines = pathlib.Path(path).read_text().splitlines()
    options, _ = split([line.split()[1] for line in lines if line.startswith("#SBATCH")] + ["end"])
    options |= given
    spooled = shutil.copyfile(path, RECORD / "slurm_script")
    environment = os.environ | {
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_JOB_NUM_NODES": options.get("nodes", "1"),
        "SLURM_CPUS_ON_NODE": str(CPUS),
        "FAKE_SIGNAL": options["signal"],
    }
    for option, variable in (("gpus-per-node", "SLURM_GPUS_ON_NODE"), ("gpus-per-task", "SLURM_GPUS_PER_TASK")):
        if option in options:
            environment[variable] = options[option]
    for start in range(100):
        if start:
            environment["SLURM_RESTART_COUNT"] = str(start)
        code = subprocess.run(["bash", spooled, *arguments], env=environment, check=False).returncode
        if not (RECORD / "requeued").exists():
            return code
        assert "requeue" in options
        (RECORD / "requeued").unlink()
    return 1


def scontrol(words: list[str]) -> int:
    assert words == ["requeue", "7"]
    (RECORD / "requeued").touch()
    return 0


def srun(words: list[str]) -> int:
    options, command = split(words)
    nodes, tasks, per_node = (int(options[name]) for name in ("nodes", "ntasks", "ntasks-per-node"))
    assert nodes * per_node == tasks and per_node * int(options["cpus-per-task"]) <= CPUS
    assert nodes <= int(os.environ["SLURM_JOB_NUM_NODES"])
    processes = []
    for number in range(tasks):
        environment = os.environ | {
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(tasks),
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number % per_node),
        }
        processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
    while any(process.poll() is None for process in processes):
        waiting = list(RECORD.glob("waiting.*"))
        if len(waiting) == tasks:
            for process, file in zip(processes, waiting, strict=True):
                file.unlink()
                os.killpg(process.pid, signal.Signals[f"SIG{os.environ['FAKE_SIGNAL'].partition('@')[0]}"])
        time.sleep(0.05)
    return max(code if code >= 0 else 128 - code for code in (process.returncode for process in processes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
