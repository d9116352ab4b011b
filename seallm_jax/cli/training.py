"""What all training stages share: shards, curriculum, mesh and loop put together."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import StageModel, padded_for
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.schema import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from seallm_jax.tokenization.tokenizer import Tokenizer


def train_model(
    context: Context,
    name: str,
    directory: pathlib.Path,
    *,
    train: TrainConfig,
    shape: ModelConfig,
    tokenizer: Tokenizer,
    shards: pathlib.Path,
    start_from: StageModel | None,
) -> dict[str, Any]:
    """Trains one stage in `directory` and returns its outcome.

    Args:
      train: the stage's configuration.
      shape: the model's shape.
      tokenizer: what the shards were made with.
      shards: directory of the packed rows.
      start_from: the model to continue; None initialises a new one.
    """
    from seallm_jax.data.loader import TrainLoader
    from seallm_jax.models.layout import initialize
    from seallm_jax.training.loop import TrainingJob
    from seallm_jax.training.loop import train as run_loop
    from seallm_jax.training.reference import reference_log_probabilities

    mesh = build_mesh(context.config.mesh)
    shape = padded_for(shape, mesh)
    readers, curriculum = compile_curriculum(context, name, train, shards, tokenizer.digest)
    references = None
    if train.objective.name == "dpo":
        if start_from is None:
            raise SeallmError(f"stage {name!r}: a preference objective needs a model to start from")
        references = reference_log_probabilities(
            start_from.load(mesh),
            readers,
            context.languages,
            directory / "reference",
            model_digest=context.manifest(start_from.stage).digest,
            batch_rows=train.batch_rows,
            mesh=mesh,
            compute_dtype=train.compute_dtype,
            progress=context.progress,
        )
    loader = TrainLoader(curriculum, readers, context.languages, references=references)
    job = TrainingJob(
        name=name,
        directory=directory,
        model=shape,
        train=train,
        languages=context.languages,
        source=loader,
        tokenizer_digest=tokenizer.digest,
        mesh=mesh,
        seed=context.config.seed,
    )

    def initial(abstract: Any) -> Any:
        if start_from is not None:
            return start_from.restore(abstract, shape)
        from flax import nnx

        return nnx.state(initialize(shape, seed=context.config.seed, mesh=mesh))

    for _ in run_loop(job, initial, context.progress):
        pass
    lines = read_metrics(directory)
    return {
        "stage": name,
        "model": dataclasses.asdict(shape),
        "tokenizer_digest": tokenizer.digest,
        "curriculum_digest": curriculum.digest,
        "steps": lines[-1]["step"],
        "rows": lines[-1]["rows"],
        "tokens": lines[-1]["tokens"],
        "first_loss": lines[0]["loss"],
        "loss": lines[-1]["loss"],
        "skipped_updates": lines[-1]["skipped_updates"],
        "seconds": lines[-1]["seconds"],
    }


def compile_curriculum(context: Context, name: str, train: TrainConfig, shards: pathlib.Path, tokenizer_digest: str):
    """(readers of the sources, compiled curriculum) of a training stage.

    A preference objective draws from preference sources, every other one from text and instructions.
    """
    from seallm_jax.data.curriculum import Curriculum
    from seallm_jax.data.shards import open_shards

    preferences = train.objective.name == "dpo"
    readers = [
        reader
        for reader in open_shards(shards, tokenizer_digest=tokenizer_digest)
        if (reader.index.kind == "preferences") == preferences
    ]
    if not train.curriculum:
        raise SeallmError(f"config.{name} has an empty curriculum: give it at least one stage with tokens")
    curriculum = Curriculum.compile(
        train.curriculum,
        [reader.source() for reader in readers],
        sequence_length=context.config.packing.sequence_length,
        batch_rows=train.batch_rows,
        seed=context.config.seed,
        directory=context.directory.root / "schedules",
    )
    return readers, curriculum


def read_metrics(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a training stage's metrics.jsonl."""
    from seallm_jax.training.telemetry import METRICS_FILE

    return list(read_jsonl(directory / METRICS_FILE))
