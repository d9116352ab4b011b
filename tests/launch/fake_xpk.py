"""Stands in for `xpk workload`, and for what GKE does with a workload: its pods are local processes.

RECORD is the directory of fake_seallm.py; `calls.jsonl` there gets the arguments of every call. A workload is a file.
Waiting for it runs it: all pods start again while one ends with a status that says so, as JobSets do.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

RECORD = pathlib.Path(os.environ["RECORD"])
WORKLOAD = RECORD / "workload"
HOSTS = 2


def main(words: list[str]) -> int:
    with open(RECORD / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    options = dict(word[2:].partition("=")[::2] for word in words[3:])
    match words[1:3]:
        case ["workload", "create"]:
            WORKLOAD.write_text(json.dumps(options))
        case ["workload", "delete"]:
            WORKLOAD.unlink()
        case ["workload", "list"] if "wait-for-job-completion" in options:
            return complete(json.loads(WORKLOAD.read_text()))
    return 0


def complete(options: dict[str, str]) -> int:
    repeated = {42, *range(127, 256), *map(int, options["restart-on-exit-codes"].split(","))}
    for _ in range(int(options["max-restarts"]) + 1):
        codes = run_pods(options)
        if not any(codes):
            return 0
        if not {code for code in codes if code} <= repeated:
            break
    return 125


def run_pods(options: dict[str, str]) -> list[int]:
    slices = int(options["num-slices"])
    hosts = ",".join(["localhost"] * HOSTS)
    pods = []
    for number in range(slices * HOSTS):
        environment = os.environ | {"TPU_WORKER_ID": str(number % HOSTS), "TPU_WORKER_HOSTNAMES": hosts}
        if slices > 1:
            megascale = {"NUM_SLICES": slices, "SLICE_ID": number // HOSTS, "COORDINATOR_ADDRESS": "localhost:8080"}
            environment |= {f"MEGASCALE_{key}": str(value) for key, value in megascale.items()}
        pods.append(subprocess.Popen(["bash", "-c", options["command"]], env=environment))
    while all(pod.poll() in (None, 0) for pod in pods) and any(pod.poll() is None for pod in pods):
        time.sleep(0.05)
    for pod in pods:  # with one of them, all are ended
        pod.terminate()
    return [pod.wait() for pod in pods]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
