"""A training stage: curriculum, objective, optimizer."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.require import require


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
        require(self.tokens > 0, "tokens", self.tokens, "it must be positive")
        require(self.alpha >= 0, "alpha", self.alpha, "it must not be negative")
        require(self.maximum_epochs >= 0, "maximum_epochs", self.maximum_epochs, "it must not be negative")
        require(
            0 <= self.transition_tokens <= self.tokens,
            "transition_tokens",
            self.transition_tokens,
            f"it must lie between 0 and tokens = {self.tokens}",
        )
        if self.mixture == "explicit":
            require(bool(self.weights), "weights", self.weights, "an explicit mixture needs weights")
        for pattern, weight in self.weights.items():
            require(weight >= 0, f"weights[{pattern!r}]", weight, "it must not be negative")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Attributes:
      schedule: constant, cosine, linear, or wsd (warmup, stable, linear decay over the last `decay_fraction`).
      warmup_fraction: share of the steps spent warming up.
      final_fraction: learning rate at the end, as a share of the peak (not for constant).
      weight_decay: decoupled, times the learning rate; none on norms and biases.
      trainable: patterns (fnmatch) of the paths of the parameters to train, such as `layers.mlp.*`. The others are
        frozen: no gradient, no optimizer state, no decay, the same bits after the stage.
      multipliers: pattern -> factor on the learning rate. The longest pattern that matches a path counts. In a config
        file, keys with dots need `ml_collections.ConfigDict(..., allow_dotted_keys=True)`.
      new_rows_first: share of the steps, from the first on, that train only the rows which the vocabulary extension
        added to `embedding.kernel` and `head.kernel`. All other values keep their bits, and Adam's moments for them
        begin at zero when they are released. 1 trains nothing else in the whole stage.
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
    trainable: tuple[str, ...] = ("*",)
    multipliers: dict[str, float] = dataclasses.field(default_factory=dict)
    new_rows_first: float = 0.0

    def __post_init__(self):
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be positive")
        require(0 <= self.warmup_fraction <= 1, "warmup_fraction", self.warmup_fraction, "it must lie in [0, 1]")
        require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 turns clipping off, negative means nothing")
        require(bool(self.trainable), "trainable", self.trainable, "it must name something to train; ('*',) is all")
        require(0 <= self.new_rows_first <= 1, "new_rows_first", self.new_rows_first, "it must lie in [0, 1]")
        for pattern, factor in self.multipliers.items():
            require(factor > 0, f"multipliers[{pattern!r}]", factor, "it must be positive; `trainable` freezes")


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
        require(self.beta > 0, "beta", self.beta, "it must be positive")
        require(0 <= self.label_smoothing < 0.5, "label_smoothing", self.label_smoothing, "it must lie in [0, 0.5)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training stage: its sources, objective and optimizer.

    Attributes:
      curriculum: the stages of the mixture, in order.
      adapter: train a low-rank adapter on the frozen model of the stage before. The stages after it, evaluation and
        export see the two merged.
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
    adapter: AdapterConfig | None = None
    batch_rows: int = 16
    accumulation: int = 1
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "full"] = "none"
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 10

    def __post_init__(self):
        require(self.batch_rows > 0, "batch_rows", self.batch_rows, "it must be positive")
        require(
            self.accumulation > 0 and self.batch_rows % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"it must divide batch_rows = {self.batch_rows}",
        )
        require(self.checkpoint_every > 0, "checkpoint_every", self.checkpoint_every, "it must be positive")
        require(self.log_every > 0, "log_every", self.log_every, "it must be positive")

    @property
    def trainable(self) -> tuple[str, ...]:
        """`optimizer.trainable`, which with an adapter and no pattern given are the adapter's parameters."""
        if self.adapter is None or self.optimizer.trainable != OptimizerConfig.trainable:
            return self.optimizer.trainable
        return self.adapter.parameters

    def with_new_rows(self, first: int) -> TrainConfig:
        """The same, `adapter.first_new_row` filled in where it is open."""
        if self.adapter is None or self.adapter.first_new_row:
            return self
        return dataclasses.replace(self, adapter=dataclasses.replace(self.adapter, first_new_row=first))
