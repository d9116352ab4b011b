"""Stands in for `gcloud compute tpus`: a queued resource is a file, workers are local processes with their own homes.

The cloud is a directory, named by FAKE_CLOUD, with `cloud.json`:
  workers: how many workers a node has.
  environment: variables of every worker.
  kill: a path pattern; once it matches, the program on worker 1 is killed with signal 9, a single time.
  hang: the same, but it is stopped and stays where it is.
  preempt: the same, but all workers die and the resource becomes SUSPENDED.
`calls.jsonl` gets the arguments of every call.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])


def main(words: list[str]) -> int:
    with open(CLOUD / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    assert words[:2] == ["compute", "tpus"], words
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    names = [word for word in words[2:] if not word.startswith("--")]
    match names:
        case ["queued-resources", "create", _]:
            return create()
        case ["queued-resources", "describe", _]:
            return describe()
        case ["queued-resources", "delete", _]:
            return delete()
        case ["tpu-vm", "scp", source, target]:
            return copy(source, target.partition(":")[2])
        case ["tpu-vm", "ssh", _]:
            return ssh(options["worker"], options["command"])
    print(f"fake gcloud does not know {names}", file=sys.stderr)
    return 2


def settings() -> dict:
    return json.loads((CLOUD / "cloud.json").read_text())


def home(worker: int) -> pathlib.Path:
    return CLOUD / f"worker-{worker}"


def create() -> int:
    if (CLOUD / "state").exists():
        print("ALREADY_EXISTS", file=sys.stderr)
        return 1
    (CLOUD / "state").write_text("PROVISIONING")
    for worker in range(settings()["workers"]):
        home(worker).mkdir()
    return 0


def describe() -> int:
    if not (CLOUD / "state").exists():
        print("NOT_FOUND", file=sys.stderr)
        return 1
    state = (CLOUD / "state").read_text()
    print(state)
    if state == "PROVISIONING":
        (CLOUD / "state").write_text("ACTIVE")
    return 0


def delete() -> int:
    (CLOUD / "state").unlink()
    for worker in range(settings()["workers"]):
        shutil.rmtree(home(worker))
    return 0


def copy(source: str, target: str) -> int:
    for worker in range(settings()["workers"]):
        shutil.copyfile(source, home(worker) / target)
    return 0


def ssh(which: str, command: str) -> int:
    if (CLOUD / "state").read_text() != "ACTIVE":
        print("the node is not reachable", file=sys.stderr)
        return 255
    cloud = settings()
    numbers = range(cloud["workers"]) if which == "all" else [int(which)]
    job = free_job()
    processes = []
    for number in numbers:
        environment = os.environ | cloud["environment"] | {"HOME": str(home(number)), "PWD": str(home(number))}
        if which == "all":  # a cluster that JAX finds by itself
            environment |= {
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": str(cloud["workers"]),
                "SLURM_PROCID": str(number),
                "SLURM_LOCALID": "0",
            }
        start = ["bash", "-c", command]
        processes.append(subprocess.Popen(start, cwd=home(number), env=environment, start_new_session=True))
    return wait(processes, cloud) if " train " in command else finish(processes)


def free_job() -> int:
    """A Slurm job number whose port, as JAX derives it, is free."""
    while True:
        job = random.randrange(4096)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", job + 65535 - 4096 + 1))
            return job


def finish(processes: list[subprocess.Popen]) -> int:
    codes = [process.wait() for process in processes]
    return next((code if code > 0 else 255 for code in codes if code), 0)


def wait(processes: list[subprocess.Popen], cloud: dict) -> int:
    """As `finish`, with the accident that is planned."""
    for kind in ("kill", "hang", "preempt"):
        done = CLOUD / f"{kind}.done"
        while cloud.get(kind) and not done.exists() and any(process.poll() is None for process in processes):
            if glob.glob(cloud[kind]):
                done.touch()
                if kind == "preempt":
                    (CLOUD / "state").write_text("SUSPENDED")
                    for process in processes:
                        os.killpg(process.pid, signal.SIGKILL)
                else:
                    (program,) = home(1).glob("*.pid")
                    os.kill(int(program.read_text()), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            time.sleep(0.1)
    return finish(processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
