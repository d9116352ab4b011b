"""What the training stages of a run are told about the stages before."""

from __future__ import annotations

from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.training import first_new_row_of
from seallm_jax.core.config import load_config
from seallm_jax.core.paths import RunDirectory
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extension import Extension
from tests.cli.conftest import CONFIGS


def test_the_first_new_row_is_the_size_of_the_base_tokenizer(finished_run):
    context = Context(load_config(CONFIGS / "smoke.py"), RunDirectory(finished_run), Progress.silent(), "")
    assert first_new_row_of(context, None) is None
    for stage in ("vocab", "pretrain"):
        start = stage_model(context, stage)
        assert first_new_row_of(context, start) == Extension.load(context.directory.stage("vocab")).base_size
        assert start.config.vocabulary_size > first_new_row_of(context, start)
