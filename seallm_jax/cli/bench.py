"""`seallm bench`: measure this machine. One file a benchmark."""

from __future__ import annotations

import argparse
from typing import Any

from seallm_jax.cli import (
    bench_attention,
    bench_convert,
    bench_corpus,
    bench_cross_entropy,
    bench_curriculum,
    bench_data,
    bench_decontamination,
    bench_duplicates,
    bench_language,
    bench_step,
    bench_vocab,
    bench_vocab_init,
)
from seallm_jax.cli.arguments import add_command
from seallm_jax.core.errors import UsageError

BENCHMARKS = (
    bench_attention,
    bench_convert,
    bench_cross_entropy,
    bench_corpus,
    bench_curriculum,
    bench_data,
    bench_decontamination,
    bench_duplicates,
    bench_language,
    bench_step,
    bench_vocab,
    bench_vocab_init,
)  # each adds its sub-command with `add_parser`


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "bench",
        help="measure parts of the framework on this machine",
        description="Each sub-command measures one part and prints what it is compared with, measured in the same run.",
        example="seallm bench convert --size=0.5b",
    )
    commands = parser.add_subparsers(title="sub-commands", metavar="SUBCOMMAND")
    for module in BENCHMARKS:
        module.add_parser(commands)
    parser.set_defaults(command=_missing)
    return parser


def _missing(options: argparse.Namespace) -> dict[str, Any]:
    raise UsageError("say what to measure, as in seallm bench convert; see seallm bench --help")
