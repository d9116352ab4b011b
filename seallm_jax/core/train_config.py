"""A training stage: curriculum, objective, optimizer."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.kernel_config import KernelConfig
from seallm_jax.core.require import require


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of a curriculum.

    A source is named kind/language, as in text/km or instructions/vi. The quality bands of text (packing.quality_bands)
    are sources of their own and share no document: text-high/km is what the band high takes, text/km the rest. So
    text/* matches no band, text-high/* is one band, text*/* all of the text; a last stage with text-high/* reads again
    what is best, and the epoch cap counts both readings.

    Attributes:
      name: shown in tables and plots.
      tokens: budget in tokens (positions of packed rows).
      mixture: how the weights of the sources come about.
        explicit: `weights`, shared within a key by temperature. group_uniform: `weights`, shared within a key equally,
        whatever the sizes (as Marco-LLM, arXiv 2412.04003).
        proportional: by size. temperature: by size ** alpha. unimax: UniMax (arXiv 2304.09151) with `maximum_epochs`.
      weights: key -> share. A key is a source name, a pattern (text/*), or several of them with commas between. A
        source belongs to the key that lists its very name, else to the one with the longest matching pattern; what
        matches no key is not served. Shares are normalised; the share of a key without sources is spread over the
        others in proportion, and the table says so.
      replay: share of the stage that goes on with the mixture that the stage before ended with.
      alpha: temperature exponent within a key or over all sources; 1 is proportional, 0 is uniform.
      maximum_epochs: no source is served more often than this over the whole curriculum; the excess goes to the others,
        and when every source is exhausted the budget shrinks. 0 means no cap.
      transition: how the weights move from those of the stage before.
      transition_tokens: length of a linear or cosine transition, counted from the stage's beginning.
      learning_rate: highest rate in this stage; 0 is that of the optimizer.
      batch_rows: rows per optimizer step in this stage, a multiple of the micro-batch (batch_rows / accumulation of the
        training); 0 is the training's.
    """

    name: str = "main"
    tokens: int = 0
    mixture: Literal["explicit", "group_uniform", "proportional", "temperature", "unimax"] = "proportional"
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    replay: float = 0.0
    alpha: float = 1.0
    maximum_epochs: float = 0.0
    transition: Literal["step", "linear", "cosine"] = "step"
    transition_tokens: int = 0
    learning_rate: float = 0.0
    batch_rows: int = 0

    def __post_init__(self):
        require(self.batch_rows >= 0, "batch_rows", self.batch_rows, "it must not be negative")
        require(self.tokens > 0, "tokens", self.tokens, "it must be positive")
        require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "it must not be negative")
        require(0 <= self.replay < 1, "replay", self.replay, "it must lie in [0, 1)")
        require(self.alpha >= 0, "alpha", self.alpha, "it must not be negative")
        require(self.maximum_epochs >= 0, "maximum_epochs", self.maximum_epochs, "it must not be negative")
        require(
            0 <= self.transition_tokens <= self.tokens,
            "transition_tokens",
            self.transition_tokens,
            f"it must lie between 0 and tokens = {self.tokens}",
        )
        if self.mixture in ("explicit", "group_uniform"):
            require(bool(self.weights), "weights", self.weights, f"mixture {self.mixture} needs weights")
        for pattern, weight in self.weights.items():
            require(weight >= 0, f"weights[{pattern!r}]", weight, "it must not be negative")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule.

    Attributes:
      name: adamw (arXiv 1711.05101); adafactor (arXiv 1804.04235), whose second moment is factored: a row and a column
        for each matrix, and whose rate is relative to the size of each parameter; lion (arXiv 2302.06675), with one
        moment, for rates some ten times lower; muon (arXiv 2502.16982), which orthogonalizes the momentum of the
        matrices within layers, for the rates of AdamW, and is AdamW with Nesterov momentum on everything else.
      learning_rate: highest rate.
      schedule: constant, cosine, linear, or wsd (warmup, stable, linear decay over the last `decay_fraction`).
      rewarmup: run the schedule anew in every stage of the curriculum, from the rate that the stage before ended with
        up to the highest (arXiv 2403.08763).
      warmup_fraction: share of the steps spent warming up.
      final_fraction: learning rate at the end, as a share of the peak (not for constant).
      weight_decay: decoupled, times the learning rate; none on norms and biases.
      b1: decay of the first moment (not for adafactor).
      b2: decay of the second moment of AdamW; of the only one of Lion.
      epsilon: added to the square root of AdamW's second moment.
      momentum: decay of the momentum that Muon orthogonalizes.
      clip_norm: gradients whose norm is larger are scaled down to it; 0 turns it off.
      state_dtype: how moments are kept. bfloat16 takes half the memory and needs b2 <= 0.99, because smaller changes of
        a second moment would be rounded away; computations are float32 in either case.
      offload_state: keep the moments in the host's memory and fetch them for the update, a layer at a time (TPUs and
        GPUs; not for adafactor, which has next to none and measures all layers together).
      trainable: patterns (fnmatch) of the paths of the parameters to train, such as `layers.mlp.*`. The others are
        frozen: no gradient, no optimizer state, no decay, the same bits after the stage. `layers.8:16.mlp.*` and
        `layers.-1.*` are for some layers only, counted as Python does; the optimizer's state is that of all layers.
      neurons: file of `seallm neurons`; only the neurons it names are trained (SeaLLMs 3 trains those of a language).
        Of other parameters, those which `trainable` names, if it is given.
      multipliers: pattern -> factor on the learning rate, also for some layers. The longest pattern counts. In a config
        file, keys with dots need `ml_collections.ConfigDict(..., allow_dotted_keys=True)`.
      new_rows_first: share of the steps, from the first on, that train only the rows which the vocabulary extension
        added to `embedding.kernel` and `head.kernel`. All other values keep their bits, and Adam's moments for them
        begin at zero when they are released. 1 trains nothing else in the whole stage.
    """

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    rewarmup: bool = False
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.2
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.95
    clip_norm: float = 1.0
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    offload_state: bool = False
    trainable: tuple[str, ...] = ("*",)
    neurons: str = ""
    multipliers: dict[str, float] = dataclasses.field(default_factory=dict)
    new_rows_first: float = 0.0

    def __post_init__(self):
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be positive")
        require(0 <= self.warmup_fraction <= 1, "warmup_fraction", self.warmup_fraction, "it must lie in [0, 1]")
        require(0 <= self.decay_fraction <= 1, "decay_fraction", self.decay_fraction, "it must lie in [0, 1]")
        require(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "it must lie in [0, 1]")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must not be negative")
        require(self.epsilon > 0, "epsilon", self.epsilon, "it must be positive")
        for key in ("b1", "b2", "momentum"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "it must lie in [0, 1)")
        coarse = self.state_dtype == "bfloat16" and self.name in ("adamw", "muon")
        require(not coarse or self.b2 <= 0.99, "b2", self.b2, "state_dtype=bfloat16 needs at most 0.99")
        require(
            not (self.offload_state and self.name == "adafactor"), "offload_state", True, "adafactor has no large state"
        )
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
      compute_dtype: dtype of the forward and backward pass.
      matmul_dtype: format that the layers' matrix products round their operands to, of which sums are exact: none, or
        int8 or fp8 with scales found in each step; needs the extra `quantization`. Parameters stay in their dtype. Not
        in 8 bits are gradients of parameters, attention, adapters and the output matrix.
      parameter_dtype: dtype in which parameters are kept. bfloat16 takes half the memory; updates are computed in
        float32 and rounded up or down at random, in proportion, so that small ones are not lost.
      kernels: implementations of attention and cross-entropy.
      remat: what the backward pass of a layer computes again, from its input.
        none: nothing. full: everything. dots: all but matrix products. dots_with_no_batch_dims: all but products with
        parameters. dots_and_attention: all but these and attention. attention: all but attention, whose output is
        kept. qkv: all but queries, keys and values, which are kept as attention takes them. offload: as attention, the
        kept output and the layer's input lying in the host's memory meanwhile (TPUs and GPUs).
      checkpoint_every: steps between checkpoints; one is always written at the end.
      keep_checkpoints: how many to keep.
      log_every: steps between log lines.
      spike_threshold: a loss above the mean of the 20 before it by so many times their usual change from one step to
        the next takes the run back to its last checkpoint, from where it goes on without the rows in between. 0 never
        does.
      step_timeout: seconds that a step may take, the reading of its rows included, before the run ends as one of whose
        hosts hangs (exit code 69; the same command continues). A start and a first batch of its size, which compile,
        may take an hour more, a checkpoint 20 minutes. 0 waits for ever.
      wandb: project at Weights & Biases that gets the log lines, too; needs the extra `wandb`. Empty for none.
    """

    curriculum: tuple[StageConfig, ...] = ()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    adapter: AdapterConfig | None = None
    batch_rows: int = 16
    accumulation: int = 1
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    matmul_dtype: Literal["none", "int8", "fp8"] = "none"
    parameter_dtype: Literal["float32", "bfloat16"] = "float32"
    kernels: KernelConfig = KernelConfig()
    remat: Literal[
        "none", "full", "dots", "dots_with_no_batch_dims", "dots_and_attention", "attention", "qkv", "offload"
    ] = "none"
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 10
    spike_threshold: float = 0.0
    step_timeout: float = 600.0
    wandb: str = ""

    def __post_init__(self):
        require(self.batch_rows > 0, "batch_rows", self.batch_rows, "it must be positive")
        require(
            self.accumulation > 0 and self.batch_rows % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"it must divide batch_rows = {self.batch_rows}",
        )
        for stage in self.curriculum:
            require(
                stage.batch_rows % self.micro_batch_rows == 0,
                f"curriculum stage {stage.name!r}: batch_rows",
                stage.batch_rows,
                f"it must be a multiple of the micro-batch of {self.micro_batch_rows} rows",
            )
        require(
            self.adapter is None or self.parameter_dtype == "float32",
            "parameter_dtype",
            self.parameter_dtype,
            "an adapter is trained in float32; adapter.quantize makes the frozen model smaller",
        )
        require(
            self.adapter is None or not self.optimizer.neurons,
            "optimizer.neurons",
            self.optimizer.neurons,
            "an adapter is trained in place of the model's own weights; leave out one of them",
        )
        require(self.checkpoint_every > 0, "checkpoint_every", self.checkpoint_every, "it must be positive")
        require(self.spike_threshold >= 0, "spike_threshold", self.spike_threshold, "it must not be negative")
        require(self.step_timeout >= 0, "step_timeout", self.step_timeout, "it must not be negative")
        require(self.log_every > 0, "log_every", self.log_every, "it must be positive")

    @property
    def trainable(self) -> tuple[str, ...]:
        """`optimizer.trainable`, which with an adapter and no pattern given are the adapter's parameters."""
        if self.adapter is None or self.optimizer.trainable != OptimizerConfig.trainable:
            return self.optimizer.trainable
        return self.adapter.parameters

    @property
    def micro_batch_rows(self) -> int:
        """Rows of one forward and backward pass, over all devices; the same in every stage."""
        return self.batch_rows // self.accumulation

    def with_largest_batch(self) -> TrainConfig:
        """The same, every step with as many rows as those of the stage that has most: what takes the most memory."""
        rows = max([stage.batch_rows or self.batch_rows for stage in self.curriculum], default=self.batch_rows)
        stages = tuple(dataclasses.replace(stage, batch_rows=0) for stage in self.curriculum)
        count = rows // self.micro_batch_rows
        return dataclasses.replace(self, curriculum=stages, batch_rows=rows, accumulation=count)

    def with_document_length(self, measured: int) -> TrainConfig:
        """The same, `kernels.document_length` filled in where it is open."""
        if self.kernels.document_length:
            return self
        return dataclasses.replace(self, kernels=dataclasses.replace(self.kernels, document_length=measured))

    def with_new_rows(self, first: int) -> TrainConfig:
        """The same, `adapter.first_new_row` filled in where it is open."""
        if self.adapter is None or self.adapter.first_new_row:
            return self
        return dataclasses.replace(self, adapter=dataclasses.replace(self.adapter, first_new_row=first))
