"""Packed rows to the arrays of a batch, many rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.row import PackedRow


def row_arrays(
    rows: Sequence[PackedRow],
    sequence_length: int,
    language_ids: Sequence[np.ndarray],
    modes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """The fields of a `Batch` for B rows, by name, each [B, T].

    What is done in Python is done once a row; positions, segments and targets come about for all rows together.

    Args:
      rows: B rows.
      sequence_length: T.
      language_ids: for each row int32, the run's language id of each language of its shard.
      modes: for each row how its documents see one another, as in `PackingConfig`; by default intra_document.

    Raises:
      SeallmError: a row has more than T positions.
    """
    B, T = len(rows), sequence_length
    lengths = np.array([row.length for row in rows], np.int64)
    if B and lengths.max() > T:
        raise SeallmError(
            f"a packed row has {lengths.max()} positions, more than sequence_length {T}; "
            "pack again with this sequence_length"
        )
    table = np.concatenate([PackedRow.empty().table, *(row.table for row in rows)])
    pieces = np.array([len(row.table) for row in rows], np.int64)
    row_of = np.repeat(np.arange(B), pieces)
    sizes, offsets = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    number = np.arange(len(table)) - (np.cumsum(pieces) - pieces)[row_of]
    starts = (np.cumsum(sizes) - sizes) - (np.cumsum(lengths) - lengths)[row_of] + row_of * T  # in B * T positions
    padded = np.flatnonzero(lengths < T).tolist()

    tokens = np.zeros((B, T), np.int32)
    for row, packed in enumerate(rows):
        tokens[row, : packed.length] = packed.inputs
    targets = np.zeros((B, T), np.int32)
    targets.reshape(-1)[:-1] = tokens.reshape(-1)[1:]
    targets[padded, -1] = 0
    targets.reshape(-1)[starts + sizes - 1] = table[:, 3]

    # The padding of a row is one more piece of it.
    slots = np.arange(len(table)) + row_of
    spans = np.zeros(len(table) + B, np.int64)
    spans[slots] = sizes
    spans[np.cumsum(pieces) + np.arange(B)] = T - lengths

    def along(values: np.ndarray) -> np.ndarray:
        """A value a piece, 0 for padding, at all its positions."""
        by_slot = np.zeros(len(spans), np.int32)
        by_slot[slots] = values
        return np.repeat(by_slot, spans).reshape(B, T)

    restarts, together = (
        np.array([mode == wanted for mode in modes or ["intra_document"] * B], bool)[row_of]
        for wanted in ("intra_document", "open")
    )
    positions = along(np.where(restarts, offsets - starts, -row_of * T))
    positions += np.arange(B * T, dtype=np.int32).reshape(B, T)
    languages = [ids[row.table[:, 4]] for row, ids in zip(rows, language_ids, strict=True)]
    weights = np.ones((B, T), np.float32)
    for row, packed in enumerate(rows):
        if packed.learned is not None:
            weights[row, : packed.length] = packed.learned
    for row in padded:
        positions[row, lengths[row] :] = 0
        weights[row, lengths[row] :] = 0
    return {
        "tokens": tokens,
        "targets": targets,
        "positions": positions,
        "segment_ids": along(np.where(together, 1, number + 1)),
        "loss_weights": weights,
        "language_ids": along(np.concatenate([np.empty(0, np.int32), *languages])),
    }
