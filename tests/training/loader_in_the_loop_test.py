"""The real loader under the loop: shards, curriculum, resumption, all on one integer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_job import LANGUAGES, MODEL, VOCABULARY, Settings, iterate, make_job, run

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.loader import TrainLoader
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ShardReader, ShardWriter
from seallm_jax.models.layout import initialize
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training.checkpoint import restore_parameters
from seallm_jax.training.optimizer import build_optimizer
from seallm_jax.training.schedule import build_schedule
from seallm_jax.training.step import build_step

T, ROWS, STEPS = 24, 8, 6


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    made = []
    for language, rows, shift in (("en", 40, 1), ("km", 5, 2)):
        directory = tmp_path_factory.mktemp("tokens") / "text" / language
        with ShardWriter(directory) as writer:
            for row in range(rows):
                ids = ((row + shift * np.arange(12)) % VOCABULARY).astype(np.int32)
                writer.write(PackedRow.of([Piece(ids, document=row)] * 2))
            writer.finish(
                kind="text",
                language=language,
                languages=(language,),
                sequence_length=T,
                tokenizer_digest="tokenizer",
                inputs_digest="i",
                documents=rows,
            )
        made.append(ShardReader(directory))
    return made


ONE_STAGE = (StageConfig(name="all", tokens=STEPS * ROWS * T, mixture="temperature", alpha=0.5),)
TWO_STAGES = (
    StageConfig(name="small", tokens=3 * ROWS * T),
    StageConfig(name="large", tokens=3 * 2 * ROWS * T, mixture="unimax", batch_rows=2 * ROWS),
)


def job_in(directory, readers, seed=1, stages=ONE_STAGE):
    curriculum = Curriculum.compile(
        stages, [reader.source() for reader in readers], sequence_length=T, batch_rows=ROWS, seed=seed
    )
    job = make_job(Settings(directory=str(directory), devices=1, checkpoint_every=2, steps=STEPS))
    return dataclasses.replace(job, source=TrainLoader(curriculum, readers, LANGUAGES))


@pytest.fixture(scope="module")
def growing(tmp_path_factory, readers):
    """An uninterrupted run with batches of 8 rows, then of 16: its job and its steps."""
    job = job_in(tmp_path_factory.mktemp("growing"), readers, stages=TWO_STAGES)
    return job, run(job)


def test_batches_that_grow_are_those_of_a_loop_by_hand(growing):
    """Against plain autodiff of the mean over each batch, rows read one by one."""
    job, infos = growing
    assert [info.rows for info in infos] == [8, 16, 24, 40, 56, 72]
    graph, params = nnx.split(initialize(job.model, seed=0))
    objective = build_objective(job.train.objective, len(LANGUAGES), compute_dtype=jnp.float32)
    optimizer = build_optimizer(job.train.optimizer, build_schedule(job.train.optimizer, STEPS))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        def mean(params):
            sums = objective(nnx.merge(graph, params), batch)
            return sums.loss / sums.count

        loss, gradient = jax.value_and_grad(mean)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, optax.global_norm(gradient)

    row = 0
    for info, size in zip(infos, [8, 8, 8, 16, 16, 16], strict=True):
        rows = [job.source.read(row + index, 1) for index in range(size)]
        batch = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
        params, state, loss, norm = step(params, state, batch)
        np.testing.assert_allclose([info.loss, info.gradient_norm], [loss, norm], rtol=5e-5)
        row += size


@pytest.mark.parametrize("stopped", [3, 5])
def test_a_run_with_two_batch_sizes_continues_in_both_stages(growing, tmp_path, readers, stopped):
    job, whole = growing
    steps = iterate(job_in(tmp_path, readers, stages=TWO_STAGES))
    for _ in range(stopped):
        next(steps)
    steps.close()
    other = job_in(tmp_path, readers, stages=TWO_STAGES)
    rest = run(other)
    assert [info.step for info in rest] == list(range(rest[0].step, STEPS + 1)) and rest[0].step in (stopped, 5)
    assert [dataclasses.replace(info, line=None) for info in rest] == [
        dataclasses.replace(info, line=None) for info in whole[rest[0].step - 1 :]
    ]
    abstract = build_step(MODEL, job.train, job.mesh, sequence_length=T, total_steps=STEPS, num_languages=2)
    one, another = (restore_parameters(j.checkpoints, abstract.abstract_state.params, MODEL) for j in (job, other))
    jax.tree.map(np.testing.assert_array_equal, one, another)


def test_an_interrupted_run_equals_a_whole_one(tmp_path, readers):
    whole = run(job_in(tmp_path / "whole", readers))
    assert len(whole) == STEPS and {"en", "km"} <= {code for info in whole for code in info.line["loss_by_language"]}
    steps = iterate(job_in(tmp_path / "parts", readers))
    seen = [next(steps) for _ in range(4)]
    steps.close()
    rest = run(job_in(tmp_path / "parts", readers))
    assert rest[0].step in (3, 5)  # after the newest checkpoint that was begun
    for info in seen + rest:
        assert (info.loss, info.gradient_norm, info.tokens) == (
            whole[info.step - 1].loss,
            whole[info.step - 1].gradient_norm,
            whole[info.step - 1].tokens,
        )


def test_another_curriculum_does_not_continue(tmp_path, readers):
    steps = iterate(job_in(tmp_path, readers))
    for _ in range(3):
        next(steps)
    steps.close()
    with pytest.raises(SeallmError, match="another order of the training rows: curriculum_digest"):
        run(job_in(tmp_path, readers, seed=2))
