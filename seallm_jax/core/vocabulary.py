"""Logical and padded vocabulary size, kept apart."""

from __future__ import annotations

import dataclasses

LANE_WIDTH = 128  # the last dimension of a TPU tile


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's size and the size of the embedding matrix that holds it.

    Rows from `logical_size` on are padding: masked inside the loss, never sampled, never exported.

    Attributes:
      logical_size: number of ids that the tokenizer can produce.
      padded_size: number of rows in memory, a multiple of 128 x the tensor axis.
    """

    logical_size: int
    padded_size: int

    def __post_init__(self):
        if not 0 < self.logical_size <= self.padded_size:
            raise ValueError(f"need 0 < logical_size <= padded_size, got {self.logical_size} and {self.padded_size}")

    @classmethod
    def padded(cls, logical_size: int, *, tensor: int = 1) -> Vocabulary:
        """Pads `logical_size` up to a multiple of 128 x `tensor`."""
        multiple = LANE_WIDTH * tensor
        return cls(logical_size, -(-logical_size // multiple) * multiple)
