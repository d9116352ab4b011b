"""The shape of a decoder: every switch that the model families need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from seallm_jax.core.require import require


@dataclasses.dataclass(frozen=True)
class RopeConfig:
    """Rotary positions (arXiv 2104.09864) and their extensions to longer texts.

    Attributes:
      type: default; linear divides positions by `factor`; dynamic raises the base with the length of the text (NTK);
        llama3 and yarn (arXiv 2309.00071) rescale each frequency by its wavelength.
      theta: base of the frequencies.
      factor: how many times longer than `original_positions` the texts may be.
      original_positions: positions that the model was first trained on; 0 takes the model's `max_positions`.
      low_frequency_factor: llama3, wavelengths above original_positions / this are divided by `factor`.
      high_frequency_factor: llama3, wavelengths below original_positions / this are kept.
      beta_fast: yarn, turns within original_positions from which a frequency is kept.
      beta_slow: yarn, turns below which a frequency is divided by `factor`.
      attention_factor: yarn, multiplies cosine and sine; 0 derives it from `factor` (and from mscale, if given).
      mscale: yarn, weight of the derived attention factor; 0 leaves it out.
      mscale_all_dim: yarn, divides the derived attention factor; 0 leaves it out.
      truncate: yarn, round the range of rescaled frequencies to whole dimensions.
    """

    type: Literal["default", "linear", "dynamic", "llama3", "yarn"] = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_positions: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True

    def __post_init__(self):
        require(self.theta > 1, "theta", self.theta, "it must be larger than 1")
        for key in ("factor", "beta_fast", "beta_slow"):
            require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        require(self.original_positions >= 0, "original_positions", self.original_positions, "it must not be negative")
        require(
            self.low_frequency_factor < self.high_frequency_factor,
            "low_frequency_factor",
            self.low_frequency_factor,
            f"it must be smaller than high_frequency_factor = {self.high_frequency_factor}",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the decoder. The defaults are those of the Llama family.

    Attributes:
      family: name of the Hugging Face family that the model is exported as (`seallm_jax.models.families`).
      vocabulary_size: logical size; filled in from the tokenizer when 0.
      padded_vocabulary_size: rows of the embedding; filled in when 0.
      norm: rms (arXiv 1910.07467), rms_one (scale stored as its difference from one, Gemma), or layer (with bias).
      norm_placement: pre (input of attention and MLP), post (their output, OLMo 2), or sandwich (both, Gemma 2 and 3).
      embedding_norm: normalise the embeddings (BLOOM).
      embedding_scale: factor of the embeddings, rounded to the compute dtype (Gemma: sqrt(hidden_size)).
      query_key_norm: none; head normalises each head of q and k (Qwen 3, Gemma 3); projection all heads of q, and all
        of k, together (OLMo 2). Always an RMS norm, of the kind that `norm` names.
      query_key_value_bias: biases on q, k and v.
      output_bias: bias on the attention's output.
      mlp_bias: biases in the MLP.
      gated: MLP of gate, up and down (SwiGLU, GeGLU); else of up and down.
      activation: silu, gelu (exact) or gelu_tanh (its tanh approximation).
      positions: rope, or alibi (arXiv 2108.12409; BLOOM).
      rope: rotary positions of the layers that see everything.
      local_rope: rotary positions of the layers with a sliding window; None is `rope`.
      sliding_window: tokens that a query sees in local layers, itself included; 0 when there are none.
      local_layers: for each layer, whether it has the sliding window; empty when none has.
      attention_scale: factor of the scores; 0 is 1 / sqrt(head_size).
      attention_soft_cap: cap * tanh(score / cap) on attention scores; 0 is none.
      logit_soft_cap: the same on the logits; 0 is none.
    """

    family: str = "llama"
    vocabulary_size: int = 0
    padded_vocabulary_size: int = 0
    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 4
    num_heads: int = 4
    num_key_value_heads: int = 4
    head_size: int = 64
    norm: Literal["rms", "rms_one", "layer"] = "rms"
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    norm_epsilon: float = 1e-5
    embedding_norm: bool = False
    embedding_scale: float = 1.0
    query_key_norm: Literal["none", "head", "projection"] = "none"
    query_key_value_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    positions: Literal["rope", "alibi"] = "rope"
    rope: RopeConfig = RopeConfig()
    local_rope: RopeConfig | None = None
    sliding_window: int = 0
    local_layers: tuple[bool, ...] = ()
    attention_scale: float = 0.0
    attention_soft_cap: float = 0.0
    logit_soft_cap: float = 0.0
    tie_embeddings: bool = False
    max_positions: int = 2048
    initializer_range: float = 0.02

    def __post_init__(self):
        for key in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_key_value_heads"):
            require(getattr(self, key) > 0, key, getattr(self, key), "it must be positive")
        require(
            self.num_heads % self.num_key_value_heads == 0,
            "num_key_value_heads",
            self.num_key_value_heads,
            f"it must divide num_heads = {self.num_heads}",
        )
        require(self.head_size > 0, "head_size", self.head_size, "it must be positive")
        if self.positions == "rope":
            require(self.head_size % 2 == 0, "head_size", self.head_size, "it must be even for rotary positions")
        require(
            len(self.local_layers) in (0, self.num_layers),
            "local_layers",
            self.local_layers,
            f"it must have an entry for each of the {self.num_layers} layers",
        )
        require(self.sliding_window >= 0, "sliding_window", self.sliding_window, "it must not be negative")
        require(
            self.sliding_window > 0 or not any(self.local_layers),
            "sliding_window",
            self.sliding_window,
            "local_layers need one",
        )
        for key in ("attention_scale", "attention_soft_cap", "logit_soft_cap"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "it must not be negative")

    @property
    def longest_text(self) -> int:
        """Positions that the model can work with: more than `max_positions`, if its rotary positions stretch those."""
        stretched = self.positions == "rope" and self.rope.type in ("linear", "dynamic", "yarn")
        if not stretched or self.rope.original_positions not in (0, self.max_positions):
            return self.max_positions  # stretched already
        return int(self.max_positions * self.rope.factor)


def stored_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run recorded of its model, complete and in the names of today; for runs of before model families, too."""
    values = dict(values)
    if "rope_theta" in values:
        values["rope"] = {"theta": values.pop("rope_theta")}
    complete = dataclasses.asdict(ModelConfig()) | values
    return complete | {"rope": dataclasses.asdict(RopeConfig()) | complete["rope"]}
