"""Low-rank adapters: which matrices have one, and how the frozen base is kept."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from typing import Literal

from seallm_jax.core.require import require

PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
TARGETS = (*PROJECTIONS, "embedding", "head")
# names of modules in Hugging Face models, as `target_modules` of PEFT lists them
ALIASES = {
    "q_proj": ("query",),
    "k_proj": ("key",),
    "v_proj": ("value",),
    "o_proj": ("output",),
    "gate_proj": ("gate",),
    "up_proj": ("up",),
    "down_proj": ("down",),
    "embed_tokens": ("embedding",),
    "lm_head": ("head",),
    "query_key_value": ("query", "key", "value"),
    "dense": ("output",),
    "dense_h_to_4h": ("up",),
    "dense_4h_to_h": ("down",),
    "word_embeddings": ("embedding",),
    "all-linear": PROJECTIONS,
}


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """A low-rank adapter (LoRA, arXiv 2106.09685) on a frozen base. The defaults are those of xLLMs-100, less dropout.

    Attributes:
      rank: width of the two thin matrices.
      alpha: their product is multiplied by alpha / rank.
      targets: what is adapted: query, key, value, output, gate, up, down, embedding, head; patterns (`*`), the names of
        Hugging Face modules (q_proj, query_key_value, ...) and all-linear are understood, too. Tied embeddings are
        adapted as one, under the name embedding.
      dropout: probability that an input of the first matrix is left out in training; never for embeddings.
      rank_stabilized: multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).
      train_new_rows: train the rows that the vocabulary extension added, in the embedding and in the head, in full.
      first_new_row: where those rows begin; filled in from the vocabulary stage when 0.
      quantize: how the frozen kernels of the layers are kept: none (as they are), int8 (a scale per output), or nf4
        (QLoRA, arXiv 2305.14314). Embedding, head, norms and biases stay as they are.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    rank_stabilized: bool = False
    train_new_rows: bool = False
    first_new_row: int = 0
    quantize: Literal["none", "int8", "nf4"] = "none"

    def __post_init__(self):
        require(self.rank > 0, "rank", self.rank, "it must be positive")
        require(self.alpha > 0, "alpha", self.alpha, "it must be positive")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "it must lie in [0, 1)")
        require(self.first_new_row >= 0, "first_new_row", self.first_new_row, "it must not be negative")
        for target in self.targets:
            known = f"use {', '.join(TARGETS)}, a pattern, or one of {', '.join(ALIASES)}"
            require(bool(_named(target)), "targets", target, known)
        require(bool(self.targets) or self.train_new_rows, "targets", self.targets, "there is nothing to train")
        both = {"embedding", "head"} & set(self.names)
        require(
            not (self.train_new_rows and both), "targets", self.targets, "rows that are trained in full have no adapter"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The targets by their names here, each once, in the order of `TARGETS`."""
        wanted = {name for target in self.targets for name in _named(target)}
        return tuple(name for name in TARGETS if name in wanted)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Patterns of the paths of the parameters that the adapter brings in to be trained."""
        return (("*.lora_a", "*.lora_b") if self.names else ()) + (("*.new_rows",) if self.train_new_rows else ())

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def _named(target: str) -> tuple[str, ...]:
    return ALIASES.get(target) or tuple(fnmatch.filter(TARGETS, target))
