"""Vocabulary extension."""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal

from seallm_jax.core.require import require

Initialization = Literal["mean", "weighted_mean", "first", "similarity", "global_mean", "global_noise"]
Method = Literal["continued_bpe", "donor", "merge", "append"]
METHODS: tuple[Method, ...] = typing.get_args(Method)
INITIALIZATIONS: tuple[Initialization, ...] = typing.get_args(Initialization)


@dataclasses.dataclass(frozen=True)
class VocabConfig:
    """Vocabulary extension.

    Attributes:
      size: new tokens at most, chat tokens that the base lacks included; 0 keeps the base tokenizer as it is.
      method: continued_bpe learns merges on top of the old ones; donor takes what the text uses of a donor's pieces
        (SeaLLMs); merge takes pieces of several trained models, or of one trained on each language here (Compass);
        append puts a trained model's pieces behind the base's (Chinese-LLaMA, a baseline).
      donors: tokenizers or lists of pieces for donor, merge and append (`tokenization.donor.read_donor`).
      budgets: new tokens per language at most; languages without one share the rest by expected gain.
      minimum_frequency: a new token must occur this often in the training documents.
      alpha: languages are weighted by size ** alpha while merges are learned.
      protect_base: refuse pieces that are frequent in the base languages, so that their text keeps its ids.
      protected_ratio: occurrences that protect_base tolerates, relative to those in the new languages, per byte.
      protected_scripts: scripts in which no token is added, as Latin; ASCII spares letters with diacritics only.
      pad_to: raises size so that the whole vocabulary is a multiple, as 128; 0 for none.
      strict: stop when the text supports fewer than size new tokens.
      maximum_symbols: of the different words held in memory, about 60 bytes each; larger text is sampled.
      pretokenizer: how text is cut into words by byte-level tokenizers: base as it is; mark_aware never before a
        combining mark.
      initialization: how new embedding rows come about (`tokenization.embeddings.RowInitializer`).
      output_initialization: the same for the rows of an untied output matrix; `same` as `initialization`.
    """

    size: int = 4096
    method: Method = "continued_bpe"
    donors: tuple[str, ...] = ()
    budgets: dict[str, int] = dataclasses.field(default_factory=dict)
    minimum_frequency: int = 3
    alpha: float = 0.6
    protect_base: bool = True
    protected_ratio: float = 0.02
    protected_scripts: tuple[str, ...] = ()
    pad_to: int = 0
    strict: bool = False
    maximum_symbols: int = 1 << 26
    pretokenizer: Literal["base", "mark_aware"] | None = None
    initialization: Initialization = "mean"
    output_initialization: Literal[Initialization, "same"] = "same"

    def __post_init__(self):
        require(self.size >= 0, "size", self.size, "it must not be negative")
        require(self.minimum_frequency >= 1, "minimum_frequency", self.minimum_frequency, "it must be at least 1")
        require(self.pad_to >= 0, "pad_to", self.pad_to, "it must not be negative; 0 is for none")
        require(self.protected_ratio >= 0, "protected_ratio", self.protected_ratio, "it must not be negative")
        require(self.maximum_symbols >= 1, "maximum_symbols", self.maximum_symbols, "it must be at least 1")
        spent = sum(self.budgets.values())
        require(min(self.budgets.values(), default=0) >= 0, "budgets", self.budgets, "none may be negative")
        require(spent <= self.size, "budgets", self.budgets, f"together they are more than size, {self.size}")
        needs_donor = self.method == "donor" and self.size > 0
        require(bool(self.donors) or not needs_donor, "donors", self.donors, "the method donor needs a vocabulary")
