"""The typed configuration of a run. Each class is one section of a config file."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.kernel_config import KernelConfig
from seallm_jax.core.model_config import ModelConfig, RopeConfig
from seallm_jax.core.packing_config import PackingConfig
from seallm_jax.core.require import require
from seallm_jax.core.search_config import SearchConfig
from seallm_jax.core.train_config import ObjectiveConfig, OptimizerConfig, StageConfig, TrainConfig
from seallm_jax.core.vocab_config import VocabConfig

__all__ = [
    "AdapterConfig",
    "BaseConfig",
    "CorpusConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "GenerationConfig",
    "KernelConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PackingConfig",
    "RopeConfig",
    "RunConfig",
    "SearchConfig",
    "StageConfig",
    "TrainConfig",
    "VocabConfig",
]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; one axis may be -1 and takes the devices that are left.

    Attributes:
      data: splits rows; parameters are copied along it.
      fsdp: splits rows and parameters (ZeRO-3).
      context: splits the positions of a row.
      tensor: splits heads, the inner layer of the MLP, and the vocabulary.
      slices: groups of devices that only the data centre's network joins, as the slices of a multi-slice TPU. The first
        of data and fsdp that can be divided by their number runs over them. 0 takes those that the devices make up.
    """

    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1
    slices: int = 0

    def __post_init__(self):
        axes = {key: size for key, size in dataclasses.asdict(self).items() if key != "slices"}
        for key, size in axes.items():
            require(size == -1 or size >= 1, key, size, "it must be positive, or -1 for the devices that are left")
        require(list(axes.values()).count(-1) <= 1, "fsdp", self.fsdp, "only one mesh axis may be -1")
        require(self.slices >= 0, "slices", self.slices, "it must be positive, or 0 for those that there are")


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The base model: a Hugging Face folder, or a small model trained from scratch that stands in for one.

    Attributes:
      path: folder with a checkpoint of any family and its tokenizer, or its name on the Hugging Face Hub; empty trains
        a stand-in.
      adapter: folder of an adapter in the format of PEFT, merged into the model of `path`; empty for none.
      languages: languages that the stand-in is trained on.
      tokenizer_languages: languages that its tokenizer is learned on, those that keep their ids in the extension; empty
        for `languages`.
      vocabulary_size: size of the stand-in's SentencePiece BPE tokenizer.
      model: shape of the stand-in.
      train: how the stand-in is trained; an empty curriculum cannot be trained.
    """

    path: str = ""
    adapter: str = ""
    languages: tuple[str, ...] = ("en",)
    tokenizer_languages: tuple[str, ...] = ()
    vocabulary_size: int = 2048
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        require(bool(self.path) or not self.adapter, "adapter", self.adapter, "it needs the model of `path`")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Instruction, preference and parallel files beside the corpus; empty paths mean the embedded sample.

    Attributes:
      instructions: file or directory of conversations: `messages`, Alpaca or ShareGPT rows.
      preferences: file or directory of `prompt`, `chosen`, `rejected` rows.
      parallel: file or directory of aligned sentences, one field a language, for fertility relative to English.
      preference_holdout: share of the prompts whose pairs are kept for evaluation, by hash; where a language has few
        distinct prompts it may get none.
    """

    instructions: str = ""
    preferences: str = ""
    parallel: str = ""
    preference_holdout: float = 0.2

    def __post_init__(self):
        require(
            0 < self.preference_holdout < 1,
            "preference_holdout",
            self.preference_holdout,
            "it must lie between 0 and 1",
        )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation.

    Attributes:
      choices: file or directory of multiple-choice items (`question`, `choices`, `answer`); empty for the sample.
      maximum_documents: the first so many held-out documents of each language; 0 takes all.
      batch_rows: rows per forward pass.
      compute_dtype: dtype of the forward pass.
      kernels: implementations of attention and cross-entropy.
    """

    choices: str = ""
    maximum_documents: int = 0
    batch_rows: int = 16
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    kernels: KernelConfig = KernelConfig()


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Sampling.

    Attributes:
      temperature: 0 takes the most likely token.
      top_p: nucleus mass; 1 keeps all tokens.
      repetition_penalty: divides the logits of tokens that occurred already; 1 is none.
      compute_dtype: dtype of the forward pass and of the cache.
      prompts_per_language: prompts shown in the report for each language.
    """

    maximum_new_tokens: int = 48
    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    prompts_per_language: int = 2

    def __post_init__(self):
        require(self.temperature >= 0, "temperature", self.temperature, "it must not be negative")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "it must lie in (0, 1]")
        require(self.maximum_new_tokens > 0, "maximum_new_tokens", self.maximum_new_tokens, "it must be positive")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The Hugging Face folder: dtype of the tensors and size of a shard in bytes.

    Attributes:
      adapter: what becomes of an adapter that the last stage trained. merge adds it to the model; separate leaves the
        model as it was and writes the adapter beside it, to `adapter/` in the format of PEFT.
    """

    adapter: Literal["merge", "separate"] = "merge"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    shard_bytes: int = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that `seallm run` does. An absent training stage (None) is left out of the run."""

    name: str = "run"
    seed: int = 0
    corpus: CorpusConfig = CorpusConfig()
    data: DataConfig = DataConfig()
    base: BaseConfig = BaseConfig()
    vocab: VocabConfig = VocabConfig()
    packing: PackingConfig = PackingConfig()
    mesh: MeshConfig = MeshConfig()
    pretrain: TrainConfig | None = None
    hybrid: TrainConfig | None = None
    sft: TrainConfig | None = None
    preference: TrainConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    generation: GenerationConfig = GenerationConfig()
    export: ExportConfig = ExportConfig()
    search: SearchConfig = SearchConfig()

    def __post_init__(self):
        require(self.seed >= 0, "seed", self.seed, "it must not be negative")
