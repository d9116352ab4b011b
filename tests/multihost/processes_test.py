"""Two real processes train as one does, stop together when one of them is told to, and hand over to another number."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest

from tests.multihost.group import Group

STEPS = 24
SMALL = {"devices": 4, "mesh": {"fsdp": 2, "tensor": 2}, "spans": [[3, 8], [21, 16]]}  # batches of 8 rows, then of 16

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def finish(group: Group, *codes: int) -> Group:
    assert group.wait() == list(codes), [group.errors(process)[-3000:] for process in range(len(codes))]
    return group


def test_two_processes_are_as_one(tmp_path, cache):
    whole = finish(Group(tmp_path / "one", cache, **SMALL), 0).trace()
    assert whole[:, 0].tolist() == list(range(1, STEPS + 1))

    only = {i: {"batch_log": str(tmp_path / f"batches-{i}.txt")} for i in (0, 1)}
    only[1]["terminate_at"] = 2  # only one of them is told
    pair = finish(Group(tmp_path / "two", cache, processes=2, pause=0.3, only=only, **SMALL), 75, 75)
    first, second = pair.trace(0), pair.trace(1)
    np.testing.assert_array_equal(first, second)
    stopped = len(first)
    assert 2 <= stopped < STEPS
    np.testing.assert_allclose(first, whole[:stopped], rtol=2e-5)
    rows = [set((tmp_path / f"batches-{process}.txt").read_text().splitlines()) for process in (0, 1)]
    assert rows[0] and not rows[0] & rows[1]  # each host reads its own half of every batch
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, stopped + 1))  # one process writes

    rest = finish(Group(tmp_path / "two", cache, **SMALL), 0).trace()[stopped:]
    np.testing.assert_allclose(rest, whole[stopped:], rtol=2e-5)


@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_a_lost_process_ends_the_other_with_one_line(tmp_path, cache, fault):
    lost = {"kill_at": 3} if fault == "killed" else {"stop_at": 3}
    pair = Group(
        tmp_path / "two",
        cache,
        processes=2,
        devices=2,
        steps=2000,
        step_timeout=8.0,
        heartbeat_timeout=10,
        only={1: lost},
    )
    try:
        assert pair.processes[0].wait(300) == 69, pair.errors(0)[-3000:]
        if fault == "hung":
            assert pair.processes[1].poll() is None
    finally:
        for process in pair.processes:
            process.kill()
    assert pair.processes[1].wait() == -signal.SIGKILL
    (line,) = [line for line in pair.errors(0).splitlines() if not line.startswith("test: ")]  # its progress
    assert line.startswith("seallm: error: lost host: ")
    assert line.endswith("; the same command continues from the last checkpoint")
