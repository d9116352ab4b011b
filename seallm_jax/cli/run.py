"""`seallm run`: every stage of a config, in order."""

from __future__ import annotations

import argparse
import time
from typing import Any

from seallm_jax.cli import base, corpus, evaluate, export, generate, mixture, pack, report, train, vocab
from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Stage, execute
from seallm_jax.core.errors import UsageError

# module of each stage, in the order of the run; `show` prints a stage's outcome
MODULES = {
    "corpus": corpus,
    "base": base,
    "vocab": vocab,
    "pack": pack,
    "mixture": mixture,
    "pretrain": train,
    "hybrid": train,
    "sft": train,
    "preference": train,
    "evaluate": evaluate,
    "generate": generate,
    "export": export,
    "report": report,
}


def stage_of(name: str) -> Stage:
    """The stage called `name`. Raises UsageError when there is none."""
    if name not in MODULES:
        raise UsageError(f"no stage {name!r}; the stages are {', '.join(MODULES)}")
    module = MODULES[name]
    return module.STAGES[name] if module is train else module.STAGE


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "run",
        help="all stages of a config, from raw text to a Hugging Face model",
        description="Does the stages in order, skips those whose config and inputs have not changed, and "
        f"continues after any interruption. Stages: {', '.join(MODULES)}.",
        example="seallm run --config=configs/quickstart.py --workdir=runs/mine --config.corpus.path=DIR",
    )
    add_run_arguments(parser)
    parser.add_argument("--stages", metavar="A,B", help="only these stages (default: all that the config has)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    context = make_context(options)
    names = options.stages.split(",") if options.stages else list(MODULES)
    stages = [stage_of(name) for name in names]
    if options.stages:
        for stage in stages:
            if not stage.present(context.config):
                raise UsageError(f"the config has no stage {stage.name!r}: config.{stage.name} is not set")
    start = time.monotonic()
    outcomes = {}
    for stage in stages:
        if stage.present(context.config):
            manifest = execute(stage, context)
            outcomes[stage.name] = manifest.outcome
            MODULES[stage.name].show(manifest.outcome)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"run {context.directory.root}: {len(outcomes)} stages, {minutes}m{seconds:02d}s")
    return outcomes
