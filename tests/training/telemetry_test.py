"""Lines hold means over the steps between them and never repeat a step after a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seallm_jax.core.languages import Languages
from seallm_jax.training.telemetry import METRICS_FILE, TENSORBOARD_DIRECTORY, Telemetry

LANGUAGES = Languages(("en", "km"))


def feed(telemetry, steps, *, total=10):
    for step in steps:
        telemetry.record(
            step=step,
            rows=4 * step,
            tokens=100,
            loss=(3.0 * step, 3.0),
            languages=([2.0 * step, 1.0 * step], [2.0, 1.0 if step % 4 == 0 else 0.0]),
            metrics={"rewards/margins": (step, 2.0)},
            learning_rate=0.1,
            gradient_norm=1.0,
            skipped_updates=0,
            final=step == total,
        )


def lines(directory):
    return [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]


def test_means_over_the_steps_between_lines(tmp_path):
    telemetry = Telemetry(tmp_path, LANGUAGES, log_every=4)
    feed(telemetry, range(1, 11))
    telemetry.close()
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [4, 8, 10]
    assert written[0]["loss"] == pytest.approx(np.mean([1, 2, 3, 4]))
    assert written[0]["loss_by_language"]["en"] == pytest.approx(2.5)
    assert written[0]["counts_by_language"] == {"en": 8.0, "km": 1.0}
    assert "km" not in written[2]["loss_by_language"]  # no weight in those steps
    assert written[0]["metrics"] == {"rewards/margins": pytest.approx(10 / 8)}
    assert written[1]["tokens"] == 800 and written[1]["rows"] == 32
    assert all(line["tokens_per_second"] > 0 and line["seconds"] > 0 for line in written)
    assert list((tmp_path / TENSORBOARD_DIRECTORY).glob("events*"))


def test_a_resumed_run_writes_the_same_lines_once(tmp_path):
    whole = Telemetry(tmp_path / "whole", LANGUAGES, log_every=3)
    feed(whole, range(1, 11))
    whole.close()

    killed = Telemetry(tmp_path / "parts", LANGUAGES, log_every=3)
    feed(killed, range(1, 6))
    state = json.loads(json.dumps(killed.state()))  # saved with the checkpoint of step 5
    feed(killed, range(6, 9))
    killed.close()
    path = tmp_path / "parts" / METRICS_FILE
    path.write_text(path.read_text() + '{"step": 9, "lo')  # a kill in the middle of a line
    resumed = Telemetry(tmp_path / "parts", LANGUAGES, log_every=3, restored_step=5, restored=state)
    feed(resumed, range(6, 11))
    resumed.close()

    timing = ("seconds", "tokens_per_second")
    strip = [
        [{k: v for k, v in line.items() if k not in timing} for line in lines(tmp_path / d)] for d in ("whole", "parts")
    ]
    assert strip[0] == strip[1]
    assert lines(tmp_path / "parts")[-1]["seconds"] >= state["seconds"]


def test_what_is_not_finite_does_not_spoil_the_line(tmp_path):
    telemetry = Telemetry(tmp_path, LANGUAGES, log_every=2)
    feed(telemetry, [1])
    telemetry.record(
        step=2,
        rows=8,
        tokens=100,
        loss=(float("nan"), 3.0),
        languages=([float("nan"), 0.0], [2.0, 0.0]),
        metrics={},
        learning_rate=0.1,
        gradient_norm=float("inf"),
        skipped_updates=1,
    )
    telemetry.close()
    (line,) = lines(tmp_path)
    assert line["loss"] == pytest.approx(1.0) and line["gradient_norm"] is None and line["skipped_updates"] == 1


def test_a_disabled_one_writes_nothing(tmp_path):
    telemetry = Telemetry(tmp_path, LANGUAGES, log_every=1, enabled=False)
    feed(telemetry, [1, 2])
    telemetry.close()
    assert list(tmp_path.iterdir()) == [] and telemetry.tokens == 200
