"""The models of a run, from the base to the last stage: where they lie and how to load them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.context import Context
from seallm_jax.core.schema import ModelConfig, RunConfig
from seallm_jax.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    import jax

    from seallm_jax.models.decoder import Decoder
    from seallm_jax.tokenization.tokenizer import Tokenizer

TRAINING_STAGES = ("pretrain", "hybrid", "sft", "preference")
MODEL_STAGES = ("base", "vocab", *TRAINING_STAGES)


@dataclasses.dataclass(frozen=True)
class StageModel:
    """The model that a stage left behind.

    Attributes:
      stage: name of the stage.
      config: shape of the model.
      tokenizer: directory of its tokenizer.
      checkpoints: directory of its checkpoints.
    """

    stage: str
    config: ModelConfig
    tokenizer: pathlib.Path
    checkpoints: pathlib.Path

    def load_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        from seallm_jax.tokenization.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer)

    def load_parameters(self, mesh: jax.sharding.Mesh) -> tuple[ModelConfig, Any, Any]:
        """(shape padded for `mesh`, graph definition, parameters laid out on `mesh`)."""
        import jax

        from seallm_jax.models.layout import abstract_decoder, parameter_shardings

        config = padded_for(self.config, mesh)
        graph, abstract = abstract_decoder(config)
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            parameter_shardings(abstract, mesh),
        )
        return config, graph, self.restore(abstract, config)

    def restore(self, abstract: Any, config: ModelConfig) -> Any:
        """Parameters for an abstract tree, checked against shape and tokenizer."""
        from seallm_jax.training.checkpoint import restore_parameters

        digest = self.load_tokenizer().digest
        return restore_parameters(self.checkpoints, abstract, config, tokenizer_digest=digest)

    def load(self, mesh: jax.sharding.Mesh) -> Decoder:
        """The model with its parameters laid out on `mesh`."""
        from flax import nnx

        _, graph, parameters = self.load_parameters(mesh)
        return nnx.merge(graph, parameters)


def padded_for(config: ModelConfig, mesh: jax.sharding.Mesh) -> ModelConfig:
    """The shape with the vocabulary padded for the tensor axis of `mesh`."""
    vocabulary = Vocabulary.padded(config.vocabulary_size, tensor=mesh.shape["tensor"])
    return dataclasses.replace(config, padded_vocabulary_size=vocabulary.padded_size)


def stage_model(context: Context, stage: str) -> StageModel:
    """The model of a finished stage. Raises SeallmError when the stage has not finished."""
    outcome = context.manifest(stage).outcome
    directory = context.directory.stage(stage)
    tokenizer = directory / "tokenizer" if stage == "base" else context.directory.stage("vocab")
    return StageModel(stage, ModelConfig(**outcome["model"]), tokenizer, directory / "checkpoints")


def present_models(config: RunConfig) -> tuple[str, ...]:
    """Names of the stages of this config that leave a model, in order."""
    return ("base", "vocab", *(stage for stage in TRAINING_STAGES if getattr(config, stage) is not None))


def stage_before(config: RunConfig, stage: str) -> str:
    """The stage whose model `stage` starts from."""
    models = present_models(config)
    return models[models.index(stage) - 1]
