"""What all training stages share: shards, curriculum, mesh and loop put together."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import StageModel, padded_for
from seallm_jax.core.config import to_dict
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.schema import AdapterConfig, ModelConfig, PackingConfig, TrainConfig

if TYPE_CHECKING:
    import jax
    import numpy as np

    from seallm_jax.models.decoder import Decoder
    from seallm_jax.tokenization.tokenizer import Tokenizer

NOT_DETERMINING = ("checkpoint_every", "keep_checkpoints", "log_every", "step_timeout", "wandb")


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
    first_new_row = first_new_row_of(context, start_from)
    if train.adapter is not None and first_new_row is None:
        raise SeallmError(f"stage {name!r}: an adapter needs a model to start from; leave out config.{name}.adapter")
    train = for_rows(train.with_new_rows(first_new_row or 0), context.config.packing)
    readers, curriculum = compile_curriculum(context, name, train, shards, tokenizer.digest)
    references = None
    if train.objective.name == "dpo":
        if start_from is None:
            raise SeallmError(f"stage {name!r}: a preference objective needs a model to start from")
        quantize = "none" if train.adapter is None else train.adapter.quantize
        rounded: list[str] = [quantize] if quantize != "none" else []
        if train.matmul_dtype != "none":
            rounded.append(f"products in {train.matmul_dtype}")
        references = reference_log_probabilities(
            _reference(context, start_from, train, mesh),
            readers,
            context.languages,
            directory / "reference",
            model_digest=" ".join([context.manifest(start_from.stage).digest, *rounded]),
            batch_rows=train.batch_rows,
            mesh=mesh,
            compute_dtype=train.compute_dtype,
            kernels=train.kernels,
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
        first_new_row=first_new_row,
        token_bytes=_text_bytes(tokenizer),
        profile_steps=context.profile_steps,
    )

    def initial(abstract: Any) -> Any:
        if start_from is not None and train.adapter is not None:
            return _adapted(context, start_from, train.adapter, mesh)
        if start_from is not None:
            return start_from.restore(abstract, shape)
        from flax import nnx

        dtype = train.parameter_dtype
        return nnx.state(initialize(shape, seed=context.config.seed, mesh=mesh, param_dtype=dtype))

    for _ in run_loop(job, initial, context.progress):
        pass
    lines = read_metrics(directory)
    return {
        "stage": name,
        "model": dataclasses.asdict(shape),
        "tokenizer_digest": tokenizer.digest,
        "curriculum_digest": curriculum.digest,
        "adapter": _describe(train, start_from),
        "steps": lines[-1]["step"],
        "rows": lines[-1]["rows"],
        "tokens": lines[-1]["tokens"],
        "first_loss": lines[0]["loss"],
        "loss": lines[-1]["loss"],
        "skipped_updates": lines[-1]["skipped_updates"],
        "seconds": lines[-1]["seconds"],
    }


def _text_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """int64 [V], bytes of text that each id stands for; control tokens are no text."""
    lengths = tokenizer.byte_lengths.copy()
    lengths[list(tokenizer.special_tokens.values())] = 0
    return lengths


def _adapted(context: Context, start_from: StageModel, adapter: AdapterConfig, mesh: jax.sharding.Mesh) -> Any:
    """Parameters of the model that the stage starts from, with a fresh adapter."""
    from seallm_jax.training.adapter_stage import adapted_parameters

    config, _, base = start_from.load_parameters(mesh)
    return adapted_parameters(base, config, adapter, mesh, seed=context.config.seed)


def _reference(context: Context, start_from: StageModel, train: TrainConfig, mesh: jax.sharding.Mesh) -> Decoder:
    """The frozen model of a preference stage: what the policy is before its first update, in the same few bits."""
    from flax import nnx

    from seallm_jax.models.layout import abstract_decoder
    from seallm_jax.models.projection import multiply_in

    if train.adapter is None or train.adapter.quantize == "none":
        model = start_from.load(mesh)
    else:
        graph, _ = abstract_decoder(padded_for(start_from.config, mesh), adapter=train.adapter)
        model = nnx.merge(graph, _adapted(context, start_from, train.adapter, mesh))
    multiply_in(model.layers, train.matmul_dtype)
    return model


def _describe(train: TrainConfig, start_from: StageModel | None) -> dict[str, Any] | None:
    """What is needed to load the model of an adapter stage; None for any other."""
    if train.adapter is None or start_from is None:
        return None
    return {
        "config": dataclasses.asdict(train.adapter),
        "trainable": list(train.trainable),
        "base": start_from.stage,
    }


def for_rows(train: TrainConfig, packing: PackingConfig) -> TrainConfig:
    """The same, with attention as the rows are packed for. Preference rows have no token that all documents see."""
    anchor = packing.mode == "anchor" and train.objective.name != "dpo"
    return dataclasses.replace(train, kernels=dataclasses.replace(train.kernels, anchor=anchor)) if anchor else train


def first_new_row_of(context: Context, start_from: StageModel | None) -> int | None:
    """The base tokenizer's size, for a stage that comes after the vocabulary extension."""
    return None if start_from is None else context.manifest("vocab").outcome["base_size"]


def train_section(train: TrainConfig) -> dict[str, Any]:
    """What of a stage's config decides its result: how often it logs and saves may change between two starts."""
    return {key: value for key, value in to_dict(train).items() if key not in NOT_DETERMINING}


def compile_curriculum(
    context: Context, name: str, train: TrainConfig, shards: pathlib.Path, tokenizer_digest: str | None
):
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
    from seallm_jax.training.metrics_writer import METRICS_FILE

    return list(read_jsonl(directory / METRICS_FILE))
