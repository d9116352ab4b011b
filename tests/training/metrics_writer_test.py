"""Lines in all places, none twice."""

from __future__ import annotations

import json
import sys
import types

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.training.metrics_writer import METRICS_FILE, TENSORBOARD_DIRECTORY, MetricsWriter

LINE = {
    "step": 3,
    "rows": 12,
    "loss": 1.5,
    "gradient_norm": None,
    "loss_by_language": {"km": 2.0, "lo": None},
    "mfu": {"full": 0.5},
    "counts_by_language": {"km": 1.0},
}
NUMBERS = {"train/loss": 1.5, "loss/km": 2.0, "mfu/full": 0.5}


def test_tensorboard_gets_the_numbers(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(LINE)
    writer.close()
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == LINE
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in (tmp_path / TENSORBOARD_DIRECTORY).glob("events*"):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            for value in Event.FromString(data[12 : 12 + size]).summary.value:
                found[value.tag] = value.simple_value
            data = data[16 + size :]
    assert found == NUMBERS


def test_a_restart_drops_what_came_after_the_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write({"step": step})
    writer.close()
    path = tmp_path / METRICS_FILE
    path.write_text(path.read_text() + '{"step": 4, "lo')  # a kill in the middle of a line
    MetricsWriter(tmp_path, restored_step=2).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_weights_and_biases_when_asked_for(tmp_path, monkeypatch):
    started, logged = [], []

    def init(**options):
        started.append(options)
        return types.SimpleNamespace(log=lambda numbers, step: logged.append((numbers, step)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        writer = MetricsWriter(tmp_path, name="pretrain", wandb="project")
        writer.write(LINE)
        writer.close()
    assert logged == [(NUMBERS, 3)] * 2
    assert started[0] == started[1] and started[0]["project"] == "project" and started[0]["resume"] == "allow"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SeallmError, match=r"pip install 'seallm_jax\[wandb\]'"):
        MetricsWriter(tmp_path, wandb="project")
