"""Several real processes, and what befalls them.

    python -m tests.proofs.processes [NAME ...]         in the root of the repository

All proofs take some twenty minutes on two cores. Each prints what it found; the exit status is 1 when one fails.
The processes run the small job of tests/training/small_job.py on emulated devices.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from seallm_jax.training.lost_host import EXIT_LOST_HOST
from tests.multihost.group import Group

HEARTBEAT = 30
KILLS = 20
STEPS, LONG, EVERY = 40, 150, 5
TOLERANCE = 2e-5  # of losses on another number of processes, whose sums have another order


class Bench:
    """A directory for the runs of one proof, and the compiled programs of all of them."""

    def __init__(self, root: pathlib.Path, name: str, seed: int):
        self.directory = root / name
        self.directory.mkdir()
        self.cache = root / "compiled"
        self.random = random.Random(f"{name} {seed}")

    def start(self, name: str, processes: int, only: dict[int, dict[str, Any]] | None = None, **settings: Any) -> Group:
        only = {i: {"batch_log": str(self.directory / f"{name}-{i}.rows")} | (only or {}).get(i, {}) for i in range(8)}
        defaults = {"devices": 4, "steps": STEPS, "checkpoint_every": EVERY, "heartbeat_timeout": HEARTBEAT}
        return Group(self.directory / name, self.cache, processes=processes, only=only, **(defaults | settings))

    def run(self, name: str, processes: int, code: int = 0, **settings: Any) -> Group:
        """Starts and waits; all processes must end with `code`.

        Gloo waits for 30 seconds at most until all have compiled what comes next. Where that is not enough, as on a
        busy machine with an empty cache, they end as with any lost host, and are started again.
        """
        for attempt in range(4):
            group = self.start(name, processes, **settings)
            statuses = group.wait()
            if "Gloo context initialization" not in "".join(map(group.errors, range(processes))):
                break
            print(f"  {name}: start {attempt + 2}, the machine is busy", flush=True)
        assert statuses == [code] * processes, (statuses, [group.errors(i)[-2000:] for i in range(processes)])
        return group

    def rows(self, name: str) -> set[str]:
        """Numbers and digests of the rows that all processes of a run have read, of all its starts."""
        return {line for path in self.directory.glob(f"{name}-*.rows") for line in path.read_text().splitlines()}

    def metrics(self, name: str) -> list[dict[str, Any]]:
        lines = (self.directory / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def checkpoint(self, name: str, step: int = STEPS) -> pathlib.Path:
        return self.directory / name / "checkpoints" / str(step)

    def state(self, name: str, step: int = STEPS) -> dict[str, np.ndarray]:
        """All arrays of a checkpoint, on the host."""
        arrays = {}
        for item in ("parameters", "progress"):
            path, reader = self.checkpoint(name, step) / item, ocp.PyTreeCheckpointer()
            on_host = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata.tree
            )
            tree = reader.restore(path, restore_args=on_host)
            arrays |= {f"{item}/{path}": np.asarray(leaf) for path, leaf in leaves(tree)}
        return arrays


def said(group: Group, process: int) -> list[str]:
    """What a process said on stderr, its progress left out."""
    return [line for line in group.errors(process).splitlines() if not line.startswith("test: ")]


def leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [found for key, value in tree.items() for found in leaves(value, f"{path}/{key}")]


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def by_step(trace: np.ndarray) -> np.ndarray:
    """The trace of a run with restarts, one line per step; what ran twice must have given the same bits."""
    steps = {int(line[0]): line for line in trace}
    assert all((steps[int(line[0])] == line).all() for line in trace), "a step that ran again gave something else"
    return np.stack([steps[step] for step in sorted(steps)])


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest relative difference of loss and gradient norm."""
    assert a.shape == b.shape and (a[:, [0, 3]] == b[:, [0, 3]]).all(), "other steps or other tokens"
    return float(np.max(np.abs(a[:, 1:3] / b[:, 1:3] - 1)))


def counts(bench: Bench) -> str:
    """1, 2 and 4 processes: the same rows, the same losses."""
    traces = {}
    for processes in (1, 2, 4):
        group = bench.run(f"p{processes}", processes, devices=8)
        traces[processes] = group.trace()
        assert all((group.trace(i) == group.trace(0)).all() for i in range(processes))
        assert bench.rows(f"p{processes}") == bench.rows("p1") and len(bench.rows("p1")) == 8 * STEPS
    found = {processes: difference(traces[processes], traces[1]) for processes in (2, 4)}
    assert max(found.values()) < TOLERANCE
    return (
        f"{STEPS} steps on 8 devices; largest relative difference of a loss or gradient norm against 1 process: {found}"
    )


def kills(bench: Bench, processes: int = 2) -> str:
    """kill -9 of any process at a random moment; the same command resumes, to the same bits."""
    settings = {"pause": 0.05, "devices": processes, "steps": LONG}
    whole = bench.run("whole", processes, **settings)
    seconds: list[float] = []
    statuses: list[int] = []
    begin = time.monotonic()
    for kill in range(1, KILLS + 1):
        group = bench.start("killed", processes, **settings)
        victim = bench.random.randrange(processes)
        before, further = len(group.trace()), bench.random.randrange(-3, 12)
        while further > 0 and len(group.trace()) < before + further:  # else while they start
            time.sleep(0.1)
            assert group.processes[victim].poll() is None, group.errors(victim)
        time.sleep(bench.random.uniform(0, 0.5 if further > 0 else 10))
        group.send(victim, signal.SIGKILL)
        killed = time.monotonic()
        ends = group.wait()
        seconds.append(time.monotonic() - killed)
        lines = [said(group, i) for i in range(processes) if i != victim]
        assert all(len(one) == 1 and one[0].startswith("seallm: error: ") for one in lines), lines
        statuses += ends[:victim] + ends[victim + 1 :]
        step = int(group.trace()[-1][0]) if len(group.trace()) else 0
        print(f"  kill {kill}: process {victim} at step {step}; {ends} after {seconds[-1]:.1f} s", flush=True)
    group = bench.run("killed", processes, **settings)
    wall = time.monotonic() - begin
    # a process that never joined the others is no lost host: 1
    assert set(statuses) <= {1, EXIT_LOST_HOST}, statuses
    assert same_bits(bench.state("killed", LONG), bench.state("whole", LONG)), "other final parameters"
    assert (by_step(group.trace()) == whole.trace()).all() and bench.rows("killed") == bench.rows("whole")
    goodput, undisturbed = bench.metrics("killed")[-1]["goodput"], bench.metrics("whole")[-1]["goodput"]
    assert 0 < goodput < undisturbed
    return (
        f"{KILLS} kills of {processes} processes, {wall:.0f} s: rows, losses, parameters and optimizer state equal "
        f"bit for bit; exit statuses of the others {dict(collections.Counter(statuses))}, after "
        f"{np.median(seconds):.1f} s (median), {max(seconds):.1f} s at most; goodput {goodput:.3f} against "
        f"{undisturbed:.3f} undisturbed"
    )


def hosts(bench: Bench) -> str:
    """Begun on 2 processes, continued on 4 (double), then on 2, then on 1 (half)."""
    whole = bench.run("whole", 2).trace()
    ends = []
    for processes, at in ((2, 8), (4, 16), (2, 24), (1, 0)):
        only = {processes - 1: {"terminate_at": at}}  # one of them is told
        group = bench.run("moved", processes, 75 if at else 0, only=only, pause=0.1)
        ends.append((processes, len(by_step(group.trace()))))
    found = difference(by_step(group.trace()), whole)
    assert found < TOLERANCE and bench.rows("moved") == bench.rows("whole")
    return f"(processes, last step): {ends}; the rows are the same; losses differ by at most {found:.1e}"


def sigterm(bench: Bench) -> str:
    """SIGTERM to one process of several: all save and end with 75, soon."""
    found = {}
    for processes in (1, 2, 4):
        group = bench.start(f"p{processes}", processes, steps=5000, checkpoint_every=5000)
        victim = processes - 1
        while len(group.trace()) < 5:
            time.sleep(0.2)
            assert group.processes[0].poll() is None, group.errors(0)
        told = time.monotonic()
        group.send(victim, signal.SIGTERM)
        assert group.wait() == [75] * processes, [group.errors(i)[-2000:] for i in range(processes)]
        found[processes] = round(time.monotonic() - told, 1)
        last = len(group.trace())
        assert bench.checkpoint(f"p{processes}", last).is_dir()
    assert max(found.values()) < 30
    return f"seconds from the signal to the end of all processes, checkpoint written: {found}"


def disk(bench: Bench) -> str:
    """The disk fills up: before a checkpoint begins, and while it is written."""
    mount = bench.directory / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], capture_output=True).returncode:
        return "left out: a small disk cannot be mounted here (needs root)"
    (mount / "run").mkdir()
    (bench.directory / "run").symlink_to(mount / "run")  # what the processes say is written beside, where there is room
    found = []
    try:
        bench.run("whole", 2)
        bench.run("run", 2, 75, only={0: {"terminate_at": 12}})
        for left in (100, 220):  # KB; a checkpoint needs 150 KB, and takes 300
            filler = mount / "filler"
            free = os.statvfs(mount)
            size = free.f_bavail * free.f_frsize - left * 1024
            filler.write_bytes(bytes(size))
            group = bench.start("run", 2)
            statuses = group.wait()
            found.append(statuses)
            lines = [line for i in range(2) for line in said(group, i)]
            print("\n".join(f"  {left} KB left: {line[:300]}" for line in lines), flush=True)
            assert 1 in statuses and set(statuses) <= {1, EXIT_LOST_HOST} and len(lines) == 2, (statuses, lines)
            filler.unlink()
        group = bench.run("run", 2)
        assert same_bits(bench.state("run"), bench.state("whole"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    return f"exit statuses {found}, one line each; with room again, the same final bits"


def torn(bench: Bench) -> str:
    """The newest checkpoint is torn: all processes go back to the one before."""
    bench.run("whole", 2)
    group = bench.run("torn", 2, 75, only={0: {"terminate_at": 12}}, pause=0.1)
    newest = len(group.trace())
    before = max(int(p.name) for p in bench.checkpoint("torn", 0).parent.iterdir() if p.name not in (str(newest), "."))
    files = [path for path in bench.checkpoint("torn", newest).rglob("d/*") if path.stat().st_size > 200]
    assert files, "no file with arrays"
    for path in files:  # Orbax joins what the processes wrote: which of the files is read depends on their sizes
        os.truncate(path, path.stat().st_size // 2)
    group = bench.run("torn", 2)
    line = "".join(line for line in group.errors(0).splitlines() if "damaged" in line)
    assert f"the run goes on from step {before}" in line and "damaged" not in group.errors(1)
    assert same_bits(bench.state("torn"), bench.state("whole"))
    return f"checkpoint {newest} torn, back to {before}; the same final bits"


def spike(bench: Bench) -> str:
    """A loss that leaps takes both processes back."""
    settings = {"spike_threshold": 10.0, "leap": 28, "keep_checkpoints": 20}
    one, two = bench.run("one", 1, **settings), bench.run("two", 2, **settings)
    assert (two.trace(0) == two.trace(1)).all()
    told = [[line for line in group.errors(0).splitlines() if "back to the checkpoint" in line] for group in (one, two)]
    assert told[0] == told[1] and len(told[1]) == 1, told
    assert bench.metrics("two")[-1]["rollbacks"] == 1 and difference(two.trace(), one.trace()) < TOLERANCE
    assert bench.rows("two") == bench.rows("one")
    return told[1][0]


def hung(bench: Bench) -> str:
    """SIGSTOP of any process: the others end with 69 and one line, once by the heartbeat, once by the step's time."""
    found = {}
    for victim in (0, 1):
        for name, settings in (("heartbeat", {}), ("step_timeout", {"step_timeout": 3.0, "heartbeat_timeout": 100})):
            group = bench.start(f"{name}-{victim}", 2, steps=5000, checkpoint_every=5000, **settings)
            while len(group.trace()) < 5:
                time.sleep(0.2)
                assert group.processes[0].poll() is None, group.errors(0)
            stopped = time.monotonic()
            group.send(victim, signal.SIGSTOP)
            other = group.processes[1 - victim]
            code = other.wait(60)
            found[f"{name}, process {victim}"] = round(time.monotonic() - stopped, 1)
            group.send(victim, signal.SIGKILL)
            lines = said(group, 1 - victim)
            assert code == EXIT_LOST_HOST and len(lines) == 1 and lines[0].startswith("seallm: error: lost host"), (
                code,
                lines,
            )
            print(f"  {lines[0]}", flush=True)
    return f"seconds from SIGSTOP to the other's end: {found}"


PROOFS: dict[str, Callable[[Bench], str]] = {
    proof.__name__: proof for proof in (counts, kills, hosts, sigterm, hung, disk, torn, spike)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(PROOFS))
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    unknown = set(options.names) - set(PROOFS)
    if unknown:
        parser.error(f"no proof {', '.join(sorted(unknown))}; there are {', '.join(PROOFS)}")
    failed = 0
    with tempfile.TemporaryDirectory() as root:
        for name in options.names or PROOFS:
            begin = time.monotonic()
            try:
                said = PROOFS[name](Bench(pathlib.Path(root), name, options.seed))
            except AssertionError as error:
                failed, said = 1, f"FAILED: {error}"
            print(f"{name} ({time.monotonic() - begin:.0f} s): {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
