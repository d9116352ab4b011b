"""The loop on a small job: it learns, writes down what it did, resumes, and stops when it must."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading

import jax
import numpy as np
import pytest
from small_job import Settings, iterate, make_job, run

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.training.checkpoint import restore_parameters
from seallm_jax.training.preemption import EXIT_PREEMPTED, Preempted
from seallm_jax.training.step import build_step
from seallm_jax.training.telemetry import METRICS_FILE


def settings(directory, **options):
    return Settings(directory=str(directory), devices=1, **options)


def lines(directory):
    return [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]


def test_it_learns_and_writes_down_what_it_did(tmp_path):
    job = make_job(settings(tmp_path, steps=30, log_every=5, checkpoint_every=10))
    infos = run(job)
    assert [info.step for info in infos] == list(range(1, 31)) and infos[-1].rows == 240
    assert np.mean([i.loss for i in infos[-3:]]) < infos[0].loss - 0.5
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [5, 10, 15, 20, 25, 30]
    assert written[-1] == infos[-1].line and written[-1]["tokens"] == infos[-1].tokens > 3000
    assert written[0]["loss"] == pytest.approx(np.mean([i.loss for i in infos[:5]]), rel=0.02)
    assert set(written[0]["loss_by_language"]) == {"en", "km"} and "accuracy" in written[0]["metrics"]
    assert infos[-1].line["tokens_per_second"] > 0

    assert run(job) == []  # finished: nothing is left to do
    assert lines(tmp_path) == written
    abstract = build_step(job.model, job.train, job.mesh, sequence_length=24, total_steps=1, num_languages=2)
    params = restore_parameters(job.checkpoints, abstract.abstract_state.params, job.model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(params)))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
def test_a_run_continues_on_another_mesh(tmp_path):
    whole = run(make_job(settings(tmp_path / "whole", steps=6)))
    steps = iterate(make_job(settings(tmp_path / "parts", steps=6, checkpoint_every=3)))
    first = [next(steps).loss for _ in range(4)]
    steps.close()
    assert first == [info.loss for info in whole[:4]]
    other = Settings(directory=str(tmp_path / "parts"), steps=6, mesh={"fsdp": 4, "tensor": 2}, devices=8)
    rest = run(make_job(other))
    assert [info.step for info in rest] == [4, 5, 6]
    np.testing.assert_allclose([i.loss for i in rest], [i.loss for i in whole[3:]], rtol=2e-5)
    assert [i.tokens for i in rest] == [i.tokens for i in whole[3:]]


def test_preferences_run_through_the_same_loop(tmp_path):
    infos = run(make_job(settings(tmp_path, steps=3, objective="dpo")))
    assert len(infos) == 3 and all(np.isfinite(info.loss) for info in infos)
    assert {"rewards/margins", "rewards/accuracies"} <= set(infos[-1].line["metrics"])


def test_sigterm_saves_and_raises_and_the_handler_comes_back(tmp_path):
    def mine(*_):
        raise AssertionError("the run should have taken the signal")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        job = make_job(settings(tmp_path, steps=6))
        seen = []
        with pytest.raises(Preempted, match=r"told to stop at step \d of 6; .*same command continues") as stop:
            for info in iterate(job):
                seen.append(info.step)
                if info.step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
        assert stop.value.exit_code == EXIT_PREEMPTED == 75
        assert signal.getsignal(signal.SIGTERM) is mine
        assert seen == list(range(1, seen[-1] + 1)) and seen[-1] <= 4
        assert (job.checkpoints / str(seen[-1])).is_dir()
        assert [info.step for info in run(job)] == list(range(seen[-1] + 1, 7))
        assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_runs_outside_the_main_thread_and_leaves_signals_alone(tmp_path):
    job = make_job(settings(tmp_path, steps=6))
    results = []
    thread = threading.Thread(target=lambda: results.extend(run(job)))
    handler = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert len(results) == 6 and signal.getsignal(signal.SIGTERM) is handler


def test_a_consumer_that_stops_early_leaves_everything_closed(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    steps = iterate(make_job(settings(tmp_path, steps=6)))
    next(steps)
    steps.close()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_updates_that_keep_failing_end_the_run(tmp_path):
    job = make_job(settings(tmp_path, steps=30))

    class Spoiled(type(job.source)):
        def batches(self, start_row, rows):
            for batch in super().batches(start_row, rows):
                yield dataclasses.replace(batch, loss_weights=np.full_like(batch.loss_weights, np.nan))

    job = dataclasses.replace(job, source=Spoiled(**dataclasses.asdict(job.source)))
    with pytest.raises(SeallmError, match="last 20 updates up to step 2[01] had a loss or gradient"):
        run(job)


def test_too_few_rows(tmp_path):
    job = make_job(settings(tmp_path, steps=0))
    with pytest.raises(UsageError, match="0 rows, fewer than batch_rows = 8; raise the token budget"):
        run(job)
