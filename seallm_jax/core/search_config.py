"""The search for a mixture with many small models."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.model_config import ModelConfig
from seallm_jax.core.require import require
from seallm_jax.core.train_config import OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """`seallm mixture search`: train small models on sampled mixtures and fit their losses (RegMix, arXiv 2407.01492).

    Values are ours where RegMix's are not named.

    Attributes:
      sources: patterns of the sources whose shares are searched.
      mixtures: how many are sampled, three fixed ones among them, at least two a source; each trains a model. RegMix
        took 512.
      tokens: budget of each model (positions of packed rows).
      budget: tokens of the run that the mixture is for, by which `maximum_epochs` limits the shares; 0 is that of
        `pretrain`.
      maximum_epochs: no proposal reads a source more often than this within `budget` (RegMix: 15).
      alpha: mixtures are sampled around the shares size ** alpha (RegMix: 0.5).
      strengths: of the Dirichlet distributions, taken in turn. 1 around equal shares is uniform over all mixtures;
        smaller ones prefer the corners, larger ones the centre.
      floor: least share of a source (RegMix: 2e-4).
      objective: what the proposal makes smallest: the weighted mean over languages of the bits per byte of held-out
        text, or of their logarithm, in which a percent counts alike everywhere (Sailor2, arXiv 2502.12982).
      weights: language -> its weight in the objective; those that are not named have 1.
      at_once: models that a device trains side by side, as one program; 0 is 1 on CPUs and 8 elsewhere.
      model: shape of the models; the vocabulary is the run's.
      train: batch, optimizer and so on; its curriculum and adapter are not used.
    """

    sources: tuple[str, ...] = ("text*/*",)
    mixtures: int = 64
    tokens: int = 2_000_000
    budget: int = 0
    maximum_epochs: float = 15.0
    alpha: float = 0.5
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0)
    floor: float = 2e-4
    objective: Literal["mean", "mean_log"] = "mean"
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    at_once: int = 0
    model: ModelConfig = ModelConfig(
        hidden_size=128,
        intermediate_size=352,
        num_layers=5,
        num_heads=2,
        num_key_value_heads=2,
        head_size=64,
        initializer_range=0.06,
    )
    train: TrainConfig = TrainConfig(
        batch_rows=8, compute_dtype="float32", optimizer=OptimizerConfig(learning_rate=4e-3)
    )

    def __post_init__(self):
        require(bool(self.sources), "sources", self.sources, "it needs a pattern")
        require(self.mixtures >= 8, "mixtures", self.mixtures, "a regression needs 8 at least")
        require(self.tokens > 0, "tokens", self.tokens, "it must be positive")
        require(self.budget >= 0, "budget", self.budget, "it must not be negative")
        require(self.maximum_epochs > 0, "maximum_epochs", self.maximum_epochs, "it must be positive")
        require(self.alpha >= 0, "alpha", self.alpha, "it must not be negative")
        positive = bool(self.strengths) and all(strength > 0 for strength in self.strengths)
        require(positive, "strengths", self.strengths, "it needs positive numbers")
        require(0 <= self.floor < 1, "floor", self.floor, "it must lie in [0, 1)")
        require(self.at_once >= 0, "at_once", self.at_once, "it must not be negative")
        for code, weight in self.weights.items():
            require(weight >= 0, f"weights[{code!r}]", weight, "it must not be negative")
