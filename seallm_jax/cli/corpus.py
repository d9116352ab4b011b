"""`seallm corpus`: raw text to clean, deduplicated, language-tagged documents."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.paths import file_digest, value_digest
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import RunConfig
from seallm_jax.corpus.report import CorpusReport

HASHED_BYTES = 1 << 30  # larger corpora are known by the sizes and dates of their files
NOT_DETERMINING = ("path", "execution")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "corpus",
        help="clean, identify, deduplicate and split raw text",
        description="Reads .jsonl, .parquet, .txt and WARC files, compressed or not, here or in a bucket, and data sets"
        " by name; repairs text, identifies languages, drops what is damaged, repeated, unfit or part of the"
        " evaluation, masks personal data, and holds out a share of each language. Every dropped record is in"
        " dropped.jsonl with its reason.",
        example="seallm corpus --config=configs/quickstart.py --workdir=runs/mine --config.corpus.path=DIR --tasks=8",
    )
    add_run_arguments(parser)
    group = parser.add_argument_group("execution (also --config.corpus.execution.KEY)")
    group.add_argument("--executor", choices=("local", "slurm", "ray"), help="where the tasks run (default: local)")
    group.add_argument("--tasks", type=int, metavar="N", help="divide the input files into N tasks (default: 1)")
    group.add_argument("--workers", type=int, metavar="N", help="run N tasks at a time (default: one a core, or all)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("executor", "tasks", "workers"):
        if (value := getattr(options, name)) is not None:
            options.overrides.append(f"--config.corpus.execution.{name}={value}")
    outcome = execute(STAGE, make_context(options)).outcome
    show(outcome)
    return outcome


def show(outcome: dict[str, Any]) -> None:
    """Prints the tables of what was kept and dropped, and where labels and identification differ."""
    report = CorpusReport.from_json(outcome)
    print_table("Corpus", report.table())
    print_table("Dropped", report.dropped_table())
    print_table("Labels not confirmed", report.confusion_table())


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.corpus.pipeline import build_corpus

    config = context.config
    evaluation = _evaluation_paths(config)
    report = build_corpus(config.corpus, directory, seed=config.seed, progress=context.progress, evaluation=evaluation)
    # files of the evaluation do not count as inputs: another quiz is no reason to train again, but one to be told
    return report.to_json() | {"kept_out": [file_digest(path) for path in evaluation]}


def _evaluation_paths(config: RunConfig) -> list[pathlib.Path]:
    """What the run is evaluated on, and further files that the config names."""
    return [
        resolve_path(config.evaluation.choices, "choices"),
        resolve_path(config.data.parallel, "parallel"),
        *(resolve_path(path, "evaluation") for path in config.corpus.decontamination.paths),
    ]


def _inputs(context: Context) -> dict[str, str]:
    from seallm_jax.corpus.input_file import find_files

    config = context.config.corpus
    path = config.path
    others = {
        f"{section} {number}": file_digest(resolve_path(name, section))
        for section in ("parallel", "code_switching", "decontamination")
        for number, name in enumerate(getattr(config, section).paths)
    }
    files = find_files(path)
    local = "://" not in path
    if local and sum(file.size for file in files) <= HASHED_BYTES:
        return others | {"files": file_digest(resolve_path(path, "corpus"))}
    return others | {"files": value_digest([(file.name, file.size, file.version, file.num_shards) for file in files])}


STAGE = Stage(
    name="corpus",
    inputs=_inputs,
    section=lambda config: {key: value for key, value in to_dict(config.corpus).items() if key not in NOT_DETERMINING},
    compute=_compute,
)
