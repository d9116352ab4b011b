"""`seallm train`: continued pretraining, the hybrid stage, SFT and DPO, all by the same step and loop."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

from seallm_jax.cli import base
from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import TRAINING_STAGES, stage_before, stage_model
from seallm_jax.cli.training import train_model, train_section
from seallm_jax.core.errors import UsageError


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "train",
        help="base, pretraining, hybrid stage, SFT and DPO",
        description="Trains the stages of a config, each from the model of the one before, and continues from the"
        " newest checkpoint after an interruption. SIGTERM saves a checkpoint and exits with code 75; when a host"
        " is lost or hangs, the others exit with code 69."
        " On several hosts, do the stages before with `seallm run --stages=...` on one of them, in a "
        "directory that all see; then start this command on each, with --cluster, or --coordinator, "
        "--num_processes and --process_id.",
        example="seallm train --config=configs/quickstart.py --workdir=runs/mine --stage=pretrain",
    )
    add_run_arguments(parser)
    parser.add_argument("--stage", choices=("base", *TRAINING_STAGES), help="one stage (default: all of the config)")
    parser.add_argument(
        "--profile-steps", type=_steps, metavar="A:B", help="trace these steps of a stage into its profile/"
    )
    group = parser.add_argument_group("several hosts")
    group.add_argument("--cluster", action="store_true", help="Cloud TPU, Slurm, Open MPI or Kubernetes tells the rest")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many processes there are")
    group.add_argument("--process_id", type=int, metavar="I", help="number of this process, from 0")
    group.add_argument(
        "--heartbeat_timeout",
        type=int,
        default=100,
        metavar="SECONDS",
        help="silence after which a process counts as gone, and the others end with code 69 (default: 100)",
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    context = dataclasses.replace(make_context(options), profile_steps=options.profile_steps)
    distributed = (options.coordinator, options.num_processes, options.process_id)
    if not options.cluster and all(value is None for value in distributed):
        return _train(options, context)
    from seallm_jax.training.distributed import initialize_distributed
    from seallm_jax.training.lost_host import ending_with_other_hosts

    initialize_distributed(*distributed, heartbeat_timeout=options.heartbeat_timeout)
    with ending_with_other_hosts():
        return _train(options, dataclasses.replace(context, distributed=True))


def _train(options: argparse.Namespace, context: Context) -> dict[str, Any]:
    names = [options.stage] if options.stage else ["base", *TRAINING_STAGES]
    outcomes = {}
    for name in names:
        stage = base.STAGE if name == "base" else STAGES[name]
        if stage.present(context.config):
            outcomes[name] = execute(stage, context).outcome
            show(outcomes[name])
        elif options.stage:
            raise UsageError(f"the config has no stage {name!r}: config.{name} is not set")
    return outcomes


def _steps(text: str) -> tuple[int, int]:
    """The steps of A:B."""
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range of steps, such as 10:13")
    return int(first), int(last)


def show(outcome: dict[str, Any]) -> None:
    """Prints what a stage reached."""
    print(
        f"{outcome['stage']}: {outcome['steps']:,} steps, {outcome['tokens']:,} tokens, "
        f"loss {outcome['first_loss']:.3f} -> {outcome['loss']:.3f}"
    )


def _compute(context: Context, directory: pathlib.Path, *, name: str) -> dict[str, Any]:
    before = stage_model(context, stage_before(context.config, name))
    return train_model(
        context,
        name,
        directory,
        train=getattr(context.config, name),
        shape=before.config,
        tokenizer=before.load_tokenizer(),
        shards=context.directory.stage("pack"),
        start_from=before,
    )


def _inputs(context: Context, *, name: str) -> dict[str, str]:
    before, neurons = stage_before(context.config, name), getattr(context.config, name).optimizer.neurons
    inputs = {"model": context.manifest(before).digest, "tokens": context.manifest("pack").digest}
    if neurons:
        from seallm_jax.models.neurons import Neurons  # imports JAX

        inputs["neurons"] = Neurons.read(neurons).digest
    return inputs


def _stage(name: str) -> Stage:
    return Stage(
        name=name,
        inputs=functools.partial(_inputs, name=name),
        section=lambda config: train_section(getattr(config, name)),
        compute=functools.partial(_compute, name=name),
        present=lambda config: getattr(config, name) is not None,
    )


STAGES = {name: _stage(name) for name in TRAINING_STAGES}
