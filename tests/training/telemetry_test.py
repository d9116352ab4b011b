"""Lines hold means over the steps between them and never repeat a step after a restart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from seallm_jax.core.languages import Languages
from seallm_jax.objectives.losses import LossSums
from seallm_jax.training.metrics_writer import METRICS_FILE, TENSORBOARD_DIRECTORY, MetricsWriter
from seallm_jax.training.step import StepMetrics
from seallm_jax.training.step_clock import StepClock
from seallm_jax.training.telemetry import Telemetry

LANGUAGES = Languages(("en", "km"))


def make(directory, *, log_every, restored_step=0, restored=None):
    return Telemetry(
        LANGUAGES,
        log_every=log_every,
        clock=StepClock(flops={}, devices=1, restored=restored),
        writer=directory and MetricsWriter(directory, restored_step=restored_step),
        served=lambda rows: {"text/en": 3 * rows // 4, "text/km": rows // 4},
        restored=restored,
    )


def measured(step, *, loss=None, gradient_norm=1.0, skipped=0):
    by_language = {
        "loss": np.array([2.0 * step, 1.0 * step]),
        "count": np.array([2.0, 1.0 if step % 4 == 0 else 0.0]),
        "bytes": np.array([8.0, 3.0 if step % 4 == 0 else 0.0]),
    }
    sums = LossSums(np.float32(3.0 * step), np.float32(3.0), by_language, {"rewards/margins": (step, 2.0)})
    if loss is not None:
        by_language["loss"][:] = loss
        sums = LossSums(np.float32(loss), np.float32(3.0), by_language, {})
    return StepMetrics(sums, 100, gradient_norm, {"head": gradient_norm / 2}, np.float32(0.1), skipped)


def feed(telemetry, steps, *, total=10):
    for step in steps:
        telemetry.record(measured(step), step=step, rows=4 * step, batch_rows=4, final=step == total)


def lines(directory):
    return [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]


def test_means_over_the_steps_between_lines(tmp_path):
    telemetry = make(tmp_path, log_every=4)
    feed(telemetry, range(1, 11))
    telemetry.close()
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [4, 8, 10]
    assert written[0]["loss"] == pytest.approx(np.mean([1, 2, 3, 4]))
    assert written[0]["loss_by_language"]["en"] == pytest.approx(2.5)
    assert written[0]["counts_by_language"] == {"en": 8.0, "km": 1.0}
    bits = 2 * np.arange(1, 5) / math.log(2)
    assert written[0]["bits_per_byte_by_language"]["en"] == pytest.approx(np.sum(bits) / 32)
    assert written[0]["served"] == {"text/en": 0.75, "text/km": 0.25}
    assert written[0]["gradient_norms"] == {"head": 0.5}
    assert "km" not in written[2]["loss_by_language"]  # no weight in those steps
    assert written[0]["metrics"] == {"rewards/margins": pytest.approx(10 / 8)}
    assert written[1]["tokens"] == 800 and written[1]["rows"] == 32
    assert all(line["tokens_per_second"] > 0 and line["seconds"] > 0 for line in written)
    assert all(set(line["step_seconds"]) == {"p50", "p95"} and 0 < line["goodput"] <= 1 for line in written)
    assert list((tmp_path / TENSORBOARD_DIRECTORY).glob("events*"))


def test_a_resumed_run_writes_the_same_lines_once(tmp_path):
    whole = make(tmp_path / "whole", log_every=3)
    feed(whole, range(1, 11))
    whole.close()

    killed = make(tmp_path / "parts", log_every=3)
    feed(killed, range(1, 6))
    state = json.loads(json.dumps(killed.state()))  # saved with the checkpoint of step 5
    feed(killed, range(6, 9))
    killed.close()
    path = tmp_path / "parts" / METRICS_FILE
    path.write_text(path.read_text() + '{"step": 9, "lo')  # a kill in the middle of a line
    resumed = make(tmp_path / "parts", log_every=3, restored_step=5, restored=state)
    feed(resumed, range(6, 11))
    resumed.close()

    timing = StepClock(flops={}, devices=1).figures()
    strip = [
        [{k: v for k, v in line.items() if k not in timing} for line in lines(tmp_path / d)] for d in ("whole", "parts")
    ]
    assert strip[0] == strip[1]
    assert lines(tmp_path / "parts")[-1]["seconds"] >= state["seconds"]


def test_what_is_not_finite_does_not_spoil_the_line(tmp_path):
    telemetry = make(tmp_path, log_every=2)
    feed(telemetry, [1])
    spoiled = measured(2, loss=math.nan, gradient_norm=math.inf, skipped=1)
    telemetry.record(spoiled, step=2, rows=8, batch_rows=4)
    telemetry.close()
    (line,) = lines(tmp_path)
    assert line["loss"] == pytest.approx(1.0) and line["gradient_norm"] is None and line["skipped_updates"] == 1


def test_a_rollback_is_counted(tmp_path):
    telemetry = make(tmp_path, log_every=1)
    feed(telemetry, [1])
    saved = telemetry.state()
    feed(telemetry, [2])
    telemetry.roll_back(saved)
    feed(telemetry, [3])
    telemetry.close()
    assert [line["rollbacks"] for line in lines(tmp_path)] == [0, 0, 1] and telemetry.state()["rollbacks"] == 1
    assert lines(tmp_path)[-1]["tokens"] == 300  # read is read


def test_a_disabled_one_writes_nothing(tmp_path):
    telemetry = make(None, log_every=1)
    feed(telemetry, [1, 2])
    telemetry.close()
    assert list(tmp_path.iterdir()) == [] and telemetry.tokens == 200
