"""`seallm corpus`: raw text to clean, deduplicated, language-tagged documents."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.paths import file_digest
from seallm_jax.core.sample import resolve_path
from seallm_jax.corpus.pipeline import build_corpus
from seallm_jax.corpus.report import CorpusReport


def add_parser(subparsers) -> argparse.ArgumentParser:
    return add_stage_command(
        subparsers,
        STAGE,
        show,
        help="clean, identify, deduplicate and split raw text",
        description="Reads .jsonl, .parquet and .txt files, normalises (NFC), identifies languages, drops exact "
        "and near duplicates, and holds out a share of each language for evaluation.",
        example="seallm corpus --config=configs/quickstart.py --workdir=runs/mine --config.corpus.path=DIR",
    )


def show(outcome: dict[str, Any]) -> None:
    """Prints the table of what was kept and dropped."""
    print_table("Corpus", CorpusReport.from_json(outcome).table())


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    report = build_corpus(context.config.corpus, directory, seed=context.config.seed, progress=context.progress)
    return report.to_json()


STAGE = Stage(
    name="corpus",
    inputs=lambda context: {"files": file_digest(resolve_path(context.config.corpus.path, "corpus"))},
    section=lambda config: {key: value for key, value in to_dict(config.corpus).items() if key != "path"},
    compute=_compute,
)
