"""The `Batch` contract between the data pipeline, the objectives and the training step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

Array = Any  # jax.Array, np.ndarray or jax.ShapeDtypeStruct


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """B packed rows of T positions.

    A position holds an input token and the token to predict after it. Documents (segments) lie one after another in a
    row, numbered from 1; segment 0 is padding. Numbers come from the packer, never from looking for an end token.

    Attributes:
      tokens: int32 [B, T], input ids.
      targets: int32 [B, T], the id that follows; within the same document by construction.
      positions: int32 [B, T], 0 at each document's first position (not reset in the open and anchor modes).
      segment_ids: int32 [B, T], 1, 2, ... and 0 for padding.
      loss_weights: float32 [B, T], 0 where nothing is learned (padding, prompts).
      language_ids: int32 [B, T], index into the run's language list.
      reference_logps: float32 [B, S] or None. Preference rows only: the reference model's log-probability of the reply
        in segment s + 1. Segments 2k + 1 and 2k + 2 are the chosen and the rejected reply of the row's k-th pair.
    """

    tokens: Array
    targets: Array
    positions: Array
    segment_ids: Array
    loss_weights: Array
    language_ids: Array
    reference_logps: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.tokens.shape
