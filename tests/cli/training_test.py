"""What the training stages of a run are told about the stages before."""

from __future__ import annotations

import dataclasses
import math

import pytest

from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.plan import measured_document_length
from seallm_jax.cli.training import first_new_row_of, read_metrics, train_section
from seallm_jax.core.config import load_config
from seallm_jax.core.paths import RunDirectory
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import KernelConfig, TrainConfig
from seallm_jax.tokenization.extension import Extension
from tests.cli.conftest import CONFIGS


def test_the_first_new_row_is_the_size_of_the_base_tokenizer(finished_run):
    context = Context(load_config(CONFIGS / "smoke.py"), RunDirectory(finished_run), Progress.silent(), "")
    assert first_new_row_of(context, None) is None
    for stage in ("vocab", "pretrain"):
        start = stage_model(context, stage)
        assert first_new_row_of(context, start) == Extension.load(context.directory.stage("vocab")).base_size
        assert start.config.vocabulary_size > first_new_row_of(context, start)


def test_the_plan_takes_the_length_of_documents_from_the_packed_rows(finished_run):
    config = load_config(CONFIGS / "smoke.py")
    context = Context(config, RunDirectory(finished_run), Progress.silent(), "")
    found = measured_document_length(context, "pretrain", config.pretrain)
    assert found.bit_count() == 1 and 16 <= found <= config.packing.sequence_length
    assert measured_document_length(context, "preference", config.preference) > 0
    elsewhere = Context(config, RunDirectory(finished_run / "nowhere"), Progress.silent(), "")
    assert measured_document_length(elsewhere, "pretrain", config.pretrain) == 0
    chosen = dataclasses.replace(config.pretrain, kernels=KernelConfig(document_length=100))
    assert chosen.with_document_length(measured_document_length(context, "pretrain", chosen)).kernels == chosen.kernels


def test_lines_tell_bits_per_byte_and_where_rows_came_from(finished_run):
    context = Context(load_config(CONFIGS / "smoke.py"), RunDirectory(finished_run), Progress.silent(), "")
    last = read_metrics(context.directory.stage("pretrain"))[-1]
    assert set(last["bits_per_byte_by_language"]) == set(last["loss_by_language"])
    for code, bits in last["bits_per_byte_by_language"].items():
        assert 0.3 < bits / (last["loss_by_language"][code] / math.log(2)) * 4 < 6, code  # a token is a few bytes
    assert sum(last["served"].values()) == pytest.approx(1.0) and "text/en" in last["served"]
    assert {"embedding", "head", "attention", "mlp", "norm"} == set(last["gradient_norms"])
    assert "bits_per_byte_by_language" not in read_metrics(context.directory.stage("preference"))[-1]


def test_how_often_a_stage_logs_and_saves_decides_nothing():
    plain = TrainConfig()
    watched = dataclasses.replace(plain, log_every=1, checkpoint_every=7, keep_checkpoints=9, wandb="sea")
    assert train_section(plain) == train_section(watched)
    assert train_section(plain) != train_section(dataclasses.replace(plain, batch_rows=32))
