"""Token sequences to score, packed into rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.data.packing import pack, split_ids
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.row_arrays import row_arrays


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """A token sequence of which the tokens from `start` on are scored.

    Attributes:
      ids: int32 [n + 1]; the first token is context only, it has nothing before it.
      start: index of the first scored token, at least 1.
    """

    ids: np.ndarray
    start: int = 1

    def __post_init__(self):
        if self.start < 1:
            raise ValueError(f"start is {self.start}; the first token has no context and cannot be scored")


def cut_context(ids: Sequence[int] | np.ndarray, start: int, sequence_length: int) -> ScoredText:
    """A sequence scored from `start` on; its context behind the first token is cut where that makes it fit a row."""
    excess = min(max(0, len(ids) - (sequence_length + 1)), start - 1)
    return ScoredText(np.asarray([ids[0], *ids[1 + excess :]], np.int32), start - excess)


class ScoredRows:
    """Texts in windows, the windows in rows; the arrays of a batch are made when it is asked for."""

    def __init__(self, texts: Sequence[ScoredText], sequence_length: int):
        """Cuts texts into windows of `sequence_length` positions at most and packs these.

        No target is lost at a cut. Windows in which nothing is scored are left out.
        """
        self._sequence_length = sequence_length
        self._owners: list[int] = []
        self._pieces: list[Piece] = []
        for index, text in enumerate(texts):
            scored = np.arange(1, len(text.ids)) >= text.start
            for number, ids in enumerate(split_ids(text.ids, sequence_length)):
                first = number * sequence_length
                learned = scored[first : first + len(ids) - 1]
                if learned.any():
                    self._owners.append(index)
                    self._pieces.append(Piece(ids, learned=learned))
        self._rows = pack([piece.positions for piece in self._pieces], sequence_length)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, start: int, count: int) -> tuple[Batch, np.ndarray]:
        """Rows start to start + count, those beyond the last one being padding.

        Returns:
          The batch, with weight 1 where a target is scored, and int64 [B, T], the text that each position belongs to.
        """
        owners_BxT = np.zeros((count, self._sequence_length), np.int64)
        rows = []
        for row, items in enumerate(self._rows[start : start + count]):
            rows.append(PackedRow.of([self._pieces[item] for item in items]))
            owners_BxT[row, : rows[-1].length] = np.repeat([self._owners[item] for item in items], rows[-1].positions)
        rows += [PackedRow.empty()] * (count - len(rows))
        return Batch(**row_arrays(rows, self._sequence_length, [np.zeros(1, np.int32)] * count)), owners_BxT
