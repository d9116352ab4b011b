"""The real loader under the loop: shards, curriculum, resumption, all on one integer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_job import LANGUAGES, VOCABULARY, Settings, iterate, make_job, run

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.loader import TrainLoader
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ShardReader, ShardWriter

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


def job_in(directory, readers, seed=1):
    stages = (StageConfig(name="all", tokens=STEPS * ROWS * T, mixture="temperature", alpha=0.5),)
    curriculum = Curriculum.compile(
        stages, [reader.source() for reader in readers], sequence_length=T, batch_rows=ROWS, seed=seed
    )
    job = make_job(Settings(directory=str(directory), devices=1, checkpoint_every=2, steps=STEPS))
    return dataclasses.replace(job, source=TrainLoader(curriculum, readers, LANGUAGES))


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
