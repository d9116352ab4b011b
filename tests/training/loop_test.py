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
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import OptimizerConfig, StageConfig
from seallm_jax.training.checkpoint import Checkpoints, restore_parameters
from seallm_jax.training.identity import Identity
from seallm_jax.training.loop import PROFILE_DIRECTORY
from seallm_jax.training.metrics_writer import METRICS_FILE
from seallm_jax.training.preemption import EXIT_PREEMPTED, Preempted
from seallm_jax.training.step import build_step


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

    job = with_source(
        job, lambda _, batch: dataclasses.replace(batch, loss_weights=np.full_like(batch.loss_weights, np.nan))
    )
    with pytest.raises(SeallmError, match="last 20 updates up to step 2[01] had a loss or gradient"):
        run(job)


def test_too_few_rows(tmp_path):
    job = make_job(settings(tmp_path, steps=0))
    with pytest.raises(UsageError, match="fewer rows than batch_rows = 8; raise the token budget"):
        run(job)


def with_source(job, spoil):
    """The job with `spoil(number of the batch, batch)` in place of its batches."""

    class Changed(type(job.source)):
        def batches(self, start_row, rows):
            for number, batch in enumerate(super().batches(start_row, rows), start_row // self.batch_rows):
                yield spoil(number, batch)

    return dataclasses.replace(job, source=Changed(**dataclasses.asdict(job.source)))


def leaps(number, batch):
    """Batches 24 to 26 have targets that nothing predicts."""
    if 24 <= number <= 26:
        return dataclasses.replace(batch, targets=(batch.targets * 31 + 17 + number) % 60)
    return batch


def spiking(directory, *, every=6, threshold=10.0):
    job = make_job(settings(directory, steps=32, checkpoint_every=every))
    train = dataclasses.replace(job.train, spike_threshold=threshold, keep_checkpoints=20)
    return with_source(dataclasses.replace(job, train=train), leaps)


def say_into(lines):
    class Said(Progress):
        def say(self, text):
            lines.append(text)

    return Said(enabled=False)


def test_a_spike_takes_the_run_back_and_leaves_out_its_rows(tmp_path):
    said = []
    job = spiking(tmp_path)
    infos = list(iterate(job, say_into(said)))
    leap = infos[24]
    assert [info.step for info in infos] == list(range(1, 33))  # every row is read once
    (line,) = said
    assert line == (
        f"test: the loss leapt to {leap.loss:.3f} at step 25; back to the checkpoint of step 24, "
        "leaving out the rows of the steps in between"
    )
    assert infos[-1].line["rollbacks"] == 1
    assert int(restore_step(job).step) == 31  # one update was taken back


def test_after_a_kill_the_same_spike_is_met_and_left_out(tmp_path):
    whole = list(iterate(spiking(tmp_path / "whole", every=8)))
    job = spiking(tmp_path / "parts", every=8)
    steps = iterate(job)
    for info in steps:
        if info.step == 29:  # after the spike at 25, before another checkpoint
            break
    steps.close()
    rest = list(iterate(job))
    assert [info.step for info in rest] == list(range(25, 33)) and rest[-1].line["rollbacks"] == 1
    assert [info.loss for info in rest] == [info.loss for info in whole[24:]]
    equal = jax.tree.map(
        lambda a, b: bool((a == b).all()),
        *(restore_step(j).params for j in (job, spiking(tmp_path / "whole", every=8))),
    )
    assert all(jax.tree.leaves(equal))


def test_without_a_checkpoint_a_spike_is_only_reported(tmp_path):
    said = []
    infos = list(iterate(spiking(tmp_path, every=100), say_into(said)))
    assert len(infos) == 32 and "no checkpoint to go back to" in said[0] and infos[-1].line["rollbacks"] == 0


def restore_step(job):
    """The state that a finished job left behind."""
    program = build_step(job.model, job.train, job.mesh, sequence_length=24, total_steps=32, num_languages=2)
    identity = Identity(job.model, "tokenizer", job.source.digest, job.train.batch_rows, job.seed)
    checkpoints = Checkpoints(job.checkpoints, identity)
    try:
        return checkpoints.restore(program.abstract_state).state
    finally:
        checkpoints.close()


def test_chosen_steps_are_traced(tmp_path):
    job = dataclasses.replace(make_job(settings(tmp_path, steps=4)), profile_steps=(2, 3))
    run(job)
    (trace,) = (tmp_path / PROFILE_DIRECTORY).glob("**/*.xplane.pb")
    data = trace.read_bytes()
    assert b"step_num" in data and b"train" in data


def test_narrow_parameters_learn_at_the_rates_of_each_stage(tmp_path):
    """At rates that are lost when parameters are rounded to the nearest: updates of 3e-4, where bfloat16 near a weight
    of 0.1 has steps of 5e-4."""
    job = make_job(settings(tmp_path, spans=((20, 8), (10, 8)), log_every=30))
    stages = (StageConfig(tokens=1), StageConfig(tokens=1, learning_rate=2e-4))
    optimizer = OptimizerConfig(learning_rate=3e-4, schedule="constant", warmup_fraction=0.0, state_dtype="bfloat16")
    train = dataclasses.replace(job.train, curriculum=stages, optimizer=optimizer, parameter_dtype="bfloat16")
    infos = run(dataclasses.replace(job, train=train))
    np.testing.assert_allclose([info.learning_rate for info in infos], [3e-4] * 20 + [2e-4] * 10, rtol=1e-6)
    assert np.mean([info.loss for info in infos[:3]]) - np.mean([info.loss for info in infos[-3:]]) > 0.05
