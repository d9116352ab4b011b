"""The typed configuration of a run. Each class is one section of a config file."""

from __future__ import annotations

import dataclasses
from typing import Literal


def _require(condition: bool, key: str, value, rule: str) -> None:
    if not condition:
        raise ValueError(f"{key} is {value!r}; {rule}")


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Raw text to clean documents.

    Attributes:
      path: a file or directory of .jsonl, .parquet or .txt files; empty for the embedded sample.
      text_key: field that holds the text.
      language_key: field that holds a language code; documents without it are identified.
      languages: keep only these codes; empty keeps all.
      holdout_fraction: share of the documents of each language kept for evaluation (at least one document).
      minimum_characters: shorter documents are dropped.
      deduplicate_near: drop documents whose estimated Jaccard similarity to an earlier one passes the threshold.
      near_threshold: similarity from which documents count as duplicates.
      ngram: characters per shingle; characters because many scripts here have no spaces.
      minimum_language_documents: languages with fewer documents are dropped, counted as `rare language`.
    """

    path: str = ""
    text_key: str = "text"
    language_key: str = "lang"
    languages: tuple[str, ...] = ()
    holdout_fraction: float = 0.02
    minimum_characters: int = 20
    deduplicate_near: bool = True
    near_threshold: float = 0.8
    ngram: int = 5
    minimum_language_documents: int = 2

    def __post_init__(self):
        _require(
            0 < self.holdout_fraction < 1, "holdout_fraction", self.holdout_fraction, "it must lie between 0 and 1"
        )
        _require(0 < self.near_threshold <= 1, "near_threshold", self.near_threshold, "it must lie in (0, 1]")
        _require(self.ngram >= 1, "ngram", self.ngram, "it must be at least 1")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the decoder (Llama family).

    Attributes:
      vocabulary_size: logical size; filled in from the tokenizer when 0.
      padded_vocabulary_size: rows of the embedding; filled in when 0.
    """

    family: Literal["llama"] = "llama"
    vocabulary_size: int = 0
    padded_vocabulary_size: int = 0
    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 4
    num_heads: int = 4
    num_key_value_heads: int = 4
    head_size: int = 64
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = False
    max_positions: int = 2048
    initializer_range: float = 0.02

    def __post_init__(self):
        for key in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_key_value_heads"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        _require(
            self.num_heads % self.num_key_value_heads == 0,
            "num_key_value_heads",
            self.num_key_value_heads,
            f"it must divide num_heads = {self.num_heads}",
        )
        _require(self.head_size > 0 and self.head_size % 2 == 0, "head_size", self.head_size, "it must be even")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; one axis may be -1 and takes the devices that are left."""

    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        for key, size in sizes.items():
            _require(size == -1 or size >= 1, key, size, "it must be positive, or -1 for the devices that are left")
        _require(list(sizes.values()).count(-1) <= 1, "fsdp", self.fsdp, "only one mesh axis may be -1")


@dataclasses.dataclass(frozen=True)
class PackingConfig:
    """Documents to rows of `sequence_length` positions.

    Attributes:
      mode: intra_document masks other documents and restarts positions at each document.
      maximum_pairs: preference pairs per row at most.
    """

    sequence_length: int = 256
    mode: Literal["intra_document"] = "intra_document"
    maximum_pairs: int = 8

    def __post_init__(self):
        _require(self.sequence_length >= 8, "sequence_length", self.sequence_length, "it must be at least 8")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of a curriculum.

    A source is named kind/language, as in text/km or instructions/vi.

    Attributes:
      name: shown in tables and plots.
      tokens: budget in tokens (positions of packed rows).
      mixture: how the weights of the sources come about.
        explicit: `weights`, shared within a key by temperature.
        proportional: by size. temperature: by size ** alpha. unimax: UniMax (arXiv 2304.09151) with `maximum_epochs`.
      weights: key -> share. A key is a source name, a pattern (text/*), or several of them with commas between. A
        source belongs to the key that lists its very name, else to the one with the longest matching pattern; what
        matches no key is not served. Shares are normalised; the share of a key without sources is spread over the
        others in proportion, and the table says so.
      alpha: temperature exponent within a key or over all sources; 1 is proportional, 0 is uniform.
      maximum_epochs: no source is served more often than this over the whole curriculum; the excess goes to the others,
        and when every source is exhausted the budget shrinks. 0 means no cap.
      transition: how the weights move from those of the stage before.
      transition_tokens: length of a linear or cosine transition, counted from the stage's beginning.
    """

    name: str = "main"
    tokens: int = 0
    mixture: Literal["explicit", "proportional", "temperature", "unimax"] = "proportional"
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    alpha: float = 1.0
    maximum_epochs: float = 0.0
    transition: Literal["step", "linear", "cosine"] = "step"
    transition_tokens: int = 0

    def __post_init__(self):
        _require(self.tokens > 0, "tokens", self.tokens, "it must be positive")
        _require(self.alpha >= 0, "alpha", self.alpha, "it must not be negative")
        _require(self.maximum_epochs >= 0, "maximum_epochs", self.maximum_epochs, "it must not be negative")
        _require(
            0 <= self.transition_tokens <= self.tokens,
            "transition_tokens",
            self.transition_tokens,
            f"it must lie between 0 and tokens = {self.tokens}",
        )
        if self.mixture == "explicit":
            _require(bool(self.weights), "weights", self.weights, "an explicit mixture needs weights")
        for pattern, weight in self.weights.items():
            _require(weight >= 0, f"weights[{pattern!r}]", weight, "it must not be negative")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Attributes:
      schedule: constant, cosine, linear, or wsd (warmup, stable, linear decay over the last `decay_fraction`).
      warmup_fraction: share of the steps spent warming up.
      final_fraction: learning rate at the end, as a share of the peak (not for constant).
    """

    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.2
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self):
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be positive")
        _require(0 <= self.warmup_fraction <= 1, "warmup_fraction", self.warmup_fraction, "it must lie in [0, 1]")
        _require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 turns clipping off, negative means nothing")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is learned.

    Attributes:
      name: language_modeling (all positions with weight), or dpo (arXiv 2305.18290).
      beta: DPO temperature.
      label_smoothing: probability that a preference label is wrong (cDPO).
      sft_coefficient: weight of an added negative log-likelihood of the chosen reply, per token.
    """

    name: Literal["language_modeling", "dpo"] = "language_modeling"
    beta: float = 0.1
    label_smoothing: float = 0.0
    sft_coefficient: float = 0.0

    def __post_init__(self):
        _require(self.beta > 0, "beta", self.beta, "it must be positive")
        _require(0 <= self.label_smoothing < 0.5, "label_smoothing", self.label_smoothing, "it must lie in [0, 0.5)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training stage: its sources, objective and optimizer.

    Attributes:
      curriculum: the stages of the mixture, in order.
      batch_rows: packed rows per optimizer step, over all devices.
      accumulation: micro-batches per step; divides batch_rows.
      compute_dtype: dtype of the forward and backward pass; parameters stay float32.
      remat: recompute each layer in the backward pass (full) or keep everything (none).
      checkpoint_every: steps between checkpoints; one is always written at the end.
      keep_checkpoints: how many to keep.
      log_every: steps between log lines.
    """

    curriculum: tuple[StageConfig, ...] = ()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch_rows: int = 16
    accumulation: int = 1
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "full"] = "none"
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 10

    def __post_init__(self):
        _require(self.batch_rows > 0, "batch_rows", self.batch_rows, "it must be positive")
        _require(
            self.accumulation > 0 and self.batch_rows % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"it must divide batch_rows = {self.batch_rows}",
        )
        _require(self.checkpoint_every > 0, "checkpoint_every", self.checkpoint_every, "it must be positive")
        _require(self.log_every > 0, "log_every", self.log_every, "it must be positive")


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The base model: a Hugging Face folder, or a small model trained from scratch that stands in for one.

    Attributes:
      path: folder with a Llama checkpoint and a SentencePiece `tokenizer.model`; empty trains a stand-in.
      languages: languages that the stand-in is trained on.
      vocabulary_size: size of the stand-in's SentencePiece BPE tokenizer.
      model: shape of the stand-in.
      train: how the stand-in is trained; an empty curriculum cannot be trained.
    """

    path: str = ""
    languages: tuple[str, ...] = ("en",)
    vocabulary_size: int = 2048
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True)
class VocabConfig:
    """Vocabulary extension.

    Attributes:
      size: new tokens at most; 0 keeps the base tokenizer as it is.
      method: continued_bpe learns merges on top of the old ones.
      minimum_frequency: a new token must occur this often in the training documents.
      initialization: how new embedding rows come about.
      alpha: languages are weighted by size ** alpha while merges are learned.
      protect_base: refuse pieces that are frequent in the base languages, so that their text keeps its ids.
    """

    size: int = 4096
    method: Literal["continued_bpe"] = "continued_bpe"
    minimum_frequency: int = 3
    initialization: Literal["mean", "global_mean"] = "mean"
    alpha: float = 0.5
    protect_base: bool = True

    def __post_init__(self):
        _require(self.size >= 0, "size", self.size, "it must not be negative")
        _require(self.minimum_frequency >= 1, "minimum_frequency", self.minimum_frequency, "it must be at least 1")


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
        _require(
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
    """

    choices: str = ""
    maximum_documents: int = 0
    batch_rows: int = 16
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


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
        _require(self.temperature >= 0, "temperature", self.temperature, "it must not be negative")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "it must lie in (0, 1]")
        _require(self.maximum_new_tokens > 0, "maximum_new_tokens", self.maximum_new_tokens, "it must be positive")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The Hugging Face folder: dtype of the tensors and size of a shard in bytes."""

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

    def __post_init__(self):
        _require(self.seed >= 0, "seed", self.seed, "it must not be negative")
