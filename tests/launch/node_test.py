"""launch/node.sh: nodes that all start one command find one another and do the stages, each what is its part."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.launch.fake_venv import ROOT, fake_venv

NODES = 2
WORDS = ("--config=configs/quickstart.py", "--workdir=/shared/a run")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the nodes are Linux machines")


def skypilot(number, nodes):
    ips = "\n".join(["localhost"] * nodes)
    return {"SKYPILOT_NODE_RANK": str(number), "SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_IPS": ips}


def xpk_gpus(number, nodes):
    return {"NODE_RANK": str(number), "NNODES": str(nodes), "JAX_COORDINATOR_ADDRESS": "localhost"}


def tpu_slice(number, nodes):
    return {"TPU_WORKER_ID": str(number), "TPU_WORKER_HOSTNAMES": ",".join(["localhost"] * nodes)}


def tpu_slices(number, nodes):
    """As many slices of one host each; their own hosts have names of their own."""
    megascale = {"NUM_SLICES": nodes, "SLICE_ID": number, "COORDINATOR_ADDRESS": "localhost:8080"}
    environment = {f"MEGASCALE_{key}": str(value) for key, value in megascale.items()}
    return environment | {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": f"slice-{number}"}


def free_ports():
    """The first of two free ports in a row, below those that connections take for themselves."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("localhost", port))
            second.bind(("localhost", port + 1))
            return port


@pytest.fixture
def start(tmp_path):
    """Starts the nodes; whatever is left of them dies with the test."""
    fake_venv(tmp_path / "venv", extra="cuda")
    fake_venv(tmp_path / "venv", extra="tpu")
    started = []

    def start(variables, *, extra="cuda", nodes=NODES, fates=""):
        shared = {"RECORD": str(tmp_path), "VENV": str(tmp_path / "venv"), "FATES": fates}
        shared |= {"JAX_COORDINATOR_PORT": str(free_ports()), "JAX_PLATFORMS": ""}
        command = [ROOT / "launch" / "node.sh", extra, *WORDS]
        for number in range(nodes):
            environment = os.environ | shared | variables(number, nodes)
            started.append(
                subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
            )
        return started[-nodes:]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def statuses(processes):
    return [process.wait(timeout=120) for process in processes]


@pytest.mark.parametrize("variables", [skypilot, xpk_gpus, tpu_slice, tpu_slices])
def test_nodes_find_one_another_and_do_their_part(tmp_path, start, variables):
    processes = start(variables, extra="tpu" if variables.__name__.startswith("tpu") else "cuda")
    assert statuses(processes) == [0, 0]
    found = [line.split() for line in (tmp_path / "words").read_text().splitlines()]
    # one process, all, one process, all, one process: none is ahead of the first of them
    parts = [found[0:1], found[1:3], found[3:4], found[4:6], found[6:]]
    shared = ["0/2", "1/2"]
    assert [sorted(words[0] for words in part) for part in parts] == [["0/1"], shared, ["0/1"], shared, ["0/1"]]
    assert [words[2] for words in found] == ["run", "train", "train", "run", "train", "train", "run"]
    addresses = {word for words in found for word in words if word.startswith("--coordinator=")}
    assert len(addresses) == 2 and all(address.startswith("--coordinator=localhost:") for address in addresses)


def test_one_node_needs_no_other(tmp_path, start):
    assert statuses(start(skypilot, nodes=1)) == [0]
    assert len((tmp_path / "words").read_text().splitlines()) == 5


@pytest.mark.parametrize(("fate", "expected"), [("75", [75, 75]), ("1", [1, 1]), ("killed", [69, 137])])
def test_the_stage_that_fails_decides(tmp_path, start, fate, expected):
    assert statuses(start(skypilot, fates=fate)) == expected
    assert "export" not in (tmp_path / "words").read_text()


def test_what_runs_is_told_to_stop(tmp_path, start):
    processes = start(skypilot, fates="told")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("waiting.*"))) < NODES:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in processes:
        process.terminate()  # the shell alone, as in a pod
    assert statuses(processes) == [75, 75]


def test_a_node_that_waits_stops_at_once(start):
    [_, second] = start(lambda number, nodes: skypilot(number + 1, nodes + 1))  # there is no first one
    time.sleep(0.5)
    second.terminate()
    assert second.wait(timeout=60) == 75


def test_mistakes_are_named():
    environment = {"PATH": os.environ["PATH"]}
    for words, named in ((["gpu"], "'gpu': say tpu or cuda"), (["tpu"], "nor a TPU pod's variables are set")):
        done = subprocess.run(
            [ROOT / "launch" / "node.sh", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and named in done.stderr
