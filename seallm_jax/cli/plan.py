"""`seallm plan`: compile the training step for a TPU topology on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import TRAINING_STAGES
from seallm_jax.cli.tables import print_table
from seallm_jax.cli.training import compile_curriculum, for_rows
from seallm_jax.core.errors import UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.schema import ModelConfig, RunConfig, TrainConfig
from seallm_jax.core.vocabulary import Vocabulary


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "plan",
        help="compile the training step for a TPU topology: does it fit?",
        description="Compiles the very step that `train` runs for a TPU slice, with the real compiler and "
        "without a TPU (pip install 'seallm_jax[plan]'), and tells the memory of each device.",
        example="seallm plan --config=configs/llama2_7b.py --topology=v5e:16x16 --config.mesh.fsdp=256",
    )
    add_run_arguments(parser)
    parser.add_argument("--topology", required=True, metavar="NAME", help="as v5e:16x16, v5p:4x4x8, v6e:2x4")
    parser.add_argument("--stage", choices=TRAINING_STAGES, default="pretrain", help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.planning.compile import plan_step

    context = make_context(options)
    config = context.config
    train = getattr(config, options.stage)
    if train is None:
        raise UsageError(f"the config has no stage {options.stage!r}: config.{options.stage} is not set")
    shape = planned_shape(config)
    train = for_rows(train.with_new_rows(shape.vocabulary_size - config.vocab.size), config.packing)
    train = train.with_document_length(measured_document_length(context, options.stage, train))
    with context.progress.task(f"compiling for {options.topology}") as advance:
        plan = plan_step(shape, train.with_largest_batch(), config.packing, config.mesh, options.topology)
        advance(1)
    print_table(f"{config.name}, {options.stage}", [{"": name, "value": value} for name, value in plan.rows()])
    return plan.to_json()


def measured_document_length(context: Context, stage: str, train: TrainConfig) -> int:
    """Usual length of a document in the rows that the run has packed for a stage; 0 where it has packed none."""
    from seallm_jax.data.loader import TrainLoader

    packed = Manifest.read(context.directory.stage("pack"))
    if packed is None or train.kernels.document_length:
        return 0
    readers, curriculum = compile_curriculum(context, stage, train, context.directory.stage("pack"), None)
    return TrainLoader(curriculum, readers, context.languages).document_length


def planned_shape(config: RunConfig) -> ModelConfig:
    """Shape of the model after vocabulary extension: of the folder `base.path` where it exists, else `base.model`."""
    path = pathlib.Path(config.base.path).expanduser() if config.base.path else None
    if path is not None and path.exists():
        from seallm_jax.interop.huggingface import read_config

        model = read_config(path)
        base_size = model.vocabulary_size
    else:
        model = config.base.model
        base_size = model.vocabulary_size or config.base.vocabulary_size
    vocabulary = Vocabulary.padded(base_size + config.vocab.size, tensor=max(config.mesh.tensor, 1))
    return dataclasses.replace(
        model, vocabulary_size=vocabulary.logical_size, padded_vocabulary_size=vocabulary.padded_size
    )
