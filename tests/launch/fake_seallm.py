"""Stands in for `seallm` on the processes of a run.

It notes its words in RECORD/words. The processes of a stage that they share meet at process 0's port, if they are given
one. What training then comes to is said by FATES, a word for each attempt:
  a number: this exit status
  killed: process 1 is killed, the others end as JAX ends a process that has lost another
  told: they wait to be told to stop, and end as a run that has saved
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import sys
import time

RECORD = pathlib.Path(os.environ["RECORD"])
LOST_HOST = 69


def main(words: list[str]) -> int:
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    number = options.get("process_id", os.environ.get("SLURM_PROCID", "0"))
    count = int(options.get("num_processes", os.environ.get("SLURM_NTASKS", "1")))
    with open(RECORD / "words", "a") as record:
        record.write(f"{number}/{count} {os.environ.get('JAX_PLATFORMS') or 'devices'} {' '.join(words)}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    if "coordinator" in options:
        host, port = options["coordinator"].split(":")
        meet(host, int(port), first=number == "0", others=count - 1)
    if words[0] != "train" or "stage" in options:
        return 0
    attempt = len(list(RECORD.glob(f"attempt.{number}.*")))
    (RECORD / f"attempt.{number}.{attempt}").touch()
    fates = os.environ.get("FATES", "").split()
    return meet_fate(fates[attempt] if attempt < len(fates) else "0", number)


def meet(host: str, port: int, *, first: bool, others: int) -> None:
    """Returns when all are there. A connection that says nothing is someone who looks whether the port is open."""
    if not first:
        with socket.create_connection((host, port), timeout=120) as connection:
            connection.sendall(b"here")
        return
    time.sleep(0.2)  # others must not need it to be open already
    with socket.create_server((host, port)) as server:
        server.settimeout(120)
        while others:
            connection, _ = server.accept()
            with connection:
                others -= bool(connection.recv(4))


def meet_fate(fate: str, number: str) -> int:
    if fate == "killed":
        if number == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return LOST_HOST
    if fate == "told":
        (RECORD / f"waiting.{number}").touch()
        time.sleep(120)
        return 1
    return int(fate)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
