"""The models of a run, from the base to the last stage: where they lie and how to load them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.context import Context
from seallm_jax.core.config import build
from seallm_jax.core.model_config import stored_model
from seallm_jax.core.schema import AdapterConfig, ModelConfig, RunConfig
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
      adapter: what the stage trained, if not the model itself.
      trainable: patterns of the parameters that it trained.
      base: the model that the adapter is for.
    """

    stage: str
    config: ModelConfig
    tokenizer: pathlib.Path
    checkpoints: pathlib.Path
    adapter: AdapterConfig | None = None
    trainable: tuple[str, ...] = ("*",)
    base: StageModel | None = None

    def load_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        from seallm_jax.tokenization.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer)

    def load_parameters(self, mesh: jax.sharding.Mesh) -> tuple[ModelConfig, Any, Any]:
        """(shape padded for `mesh`, graph definition, parameters laid out on `mesh`)."""
        config, graph, abstract = self.abstract(mesh)
        return config, graph, self.restore(abstract, config)

    def abstract(self, mesh: jax.sharding.Mesh) -> tuple[ModelConfig, Any, Any]:
        """(shape padded for `mesh`, graph definition, parameters as shapes with their layout on `mesh`)."""
        import jax

        from seallm_jax.models.layout import abstract_decoder, parameter_shardings

        config = padded_for(self.config, mesh)
        graph, abstract = abstract_decoder(config)
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            parameter_shardings(abstract, mesh),
        )
        return config, graph, abstract

    def restore(self, abstract: Any, config: ModelConfig) -> Any:
        """Parameters for an abstract tree, checked against shape and tokenizer. An adapter is merged into its base."""
        from seallm_jax.models.adapters.parameters import merge_adapter
        from seallm_jax.training.checkpoint import restore_parameters
        from seallm_jax.training.state import shardings_of

        if self.adapter is not None:
            adapted = self.restore_adapted(abstract, config)
            return merge_adapter(adapted, config, self.adapter, shardings=shardings_of(abstract))
        digest = self.load_tokenizer().digest
        return restore_parameters(self.checkpoints, abstract, config, tokenizer_digest=digest)

    def restore_adapted(self, abstract: Any, config: ModelConfig) -> Any:
        """Parameters with the adapter apart; `abstract` is that of the model without one."""
        import jax

        from seallm_jax.training.adapter_stage import restore_adapted

        assert self.adapter is not None and self.base is not None
        return restore_adapted(
            self.checkpoints,
            self.base.restore(abstract, config),
            config,
            self.adapter,
            jax.tree.leaves(abstract)[0].sharding.mesh,
            trainable=self.trainable,
            tokenizer_digest=self.load_tokenizer().digest,
        )

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
    shape = build(ModelConfig, stored_model(outcome["model"]), f"{stage}.model")
    model = StageModel(stage, shape, tokenizer, directory / "checkpoints")
    if (trained := outcome.get("adapter")) is None:
        return model
    adapter = build(AdapterConfig, trained["config"], f"{stage}.adapter")
    base = stage_model(context, trained["base"])
    return dataclasses.replace(model, adapter=adapter, trainable=tuple(trained["trainable"]), base=base)


def present_models(config: RunConfig) -> tuple[str, ...]:
    """Names of the stages of this config that leave a model, in order."""
    return ("base", "vocab", *(stage for stage in TRAINING_STAGES if getattr(config, stage) is not None))


def stage_before(config: RunConfig, stage: str) -> str:
    """The stage whose model `stage` starts from."""
    models = present_models(config)
    return models[models.index(stage) - 1]
