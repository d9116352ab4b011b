"""What an extension was asked for, made ready for the learners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from seallm_jax.core.progress import Progress


@dataclasses.dataclass(frozen=True)
class ExtensionSettings:
    """The settings of `extend_tokenizer`, whose arguments are described there.

    Attributes:
      size: new tokens at most, chat tokens and those for `pad_to` included.
      control: the chat tokens that the base lacks; they have the first of the new ids.
      guard: whether a piece leaves the protected scripts alone.
    """

    size: int
    control: tuple[str, ...]
    guard: Callable[[str], bool]
    alpha: float
    minimum_frequency: int
    budgets: Mapping[str, int]
    protected_ratio: float
    pad_to: int
    strict: bool
    maximum_symbols: int
    threads: int
    progress: Progress

    @property
    def places(self) -> int:
        """New tokens at most beside the chat tokens."""
        return self.size - len(self.control)

    def excess(self, size: int) -> int:
        """How many ids a vocabulary of this size has beyond a multiple of `pad_to`."""
        return size % self.pad_to if self.pad_to else 0
