"""Collects documents, packs them best-fit in large groups, and writes the rows of one part of a shard."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from seallm_jax.data.packing import fill_gaps, pack
from seallm_jax.data.row import NO_DOCUMENT, PackedRow, Piece
from seallm_jax.data.shard_index import ShardIndex, ShardPart, finish_shard
from seallm_jax.data.shards import ShardWriter

POOL_POSITIONS = 1 << 22  # held at least, and
POOL_ROWS = 64  # this many rows
FULL = 0.995


class RowPacker:
    """Rows of one source, or of one part of it.

    Documents are held until `pool_positions` positions (by default some four million) are there, then packed. Rows that
    are not full go back to the pool (a quarter of them at most), so that a long source is packed as well as a short
    one, in bounded memory. Running text may be cut where rows would be less than 99.5 % full together.

    Attributes:
      documents: documents added so far.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        sequence_length: int,
        *,
        part: int = 0,
        anchor: int | None = None,
        maximum_items: int = 0,
        may_cut: bool = False,
        pool_positions: int = 0,
    ):
        """
        Args:
          directory: of the shard.
          sequence_length: T, positions of a row.
          part: which file of the shard.
          anchor: id that every row begins with, as a segment of its own from which nothing is learned; None for none.
          maximum_items: items per row at most; 0 for any number.
          may_cut: whether an item, which must be one piece then, may be cut to fill rows.
          pool_positions: see above.
        """
        self._directory = directory
        self._anchor = []
        if anchor is not None:
            ids, learned = np.full(2, anchor, np.int32), np.zeros(1, bool)
            self._anchor.append(Piece(ids, document=NO_DOCUMENT, learned=learned))
        self._capacity = sequence_length - len(self._anchor)
        self._sequence_length = sequence_length
        self._maximum_items = maximum_items
        self._may_cut = may_cut
        self._pool_positions = pool_positions or max(POOL_POSITIONS, POOL_ROWS * sequence_length)
        self._writer = ShardWriter(directory, part)
        self._pool: list[Sequence[Piece]] = []
        self._held = 0
        self._truncated = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self.documents = 0

    @property
    def capacity(self) -> int:
        """Positions that an item may have at most."""
        return self._capacity

    def add_document(self, items: Sequence[Sequence[Piece]], *, truncated: bool = False) -> None:
        """Adds a document: its items, each of which stays together in one row as neighbouring segments."""
        if not items:
            self.drop("nothing to predict")
            return
        self.documents += 1
        self._truncated += truncated
        self._pool += items
        self._held += sum(_positions(item) for item in items)
        if self._held >= self._pool_positions:
            self._flush(last=False)

    def drop(self, reason: str) -> None:
        """Counts a document that is left out."""
        self._dropped[reason] += 1

    def finish_part(self) -> ShardPart:
        """Writes what is left and closes the file."""
        self._flush(last=True)
        return self._writer.finish_part(
            documents=self.documents, truncated=self._truncated, dropped=dict(self._dropped)
        )

    def finish(self, *, language: str, **description: Any) -> ShardIndex:
        """Writes what is left, and the index of a shard of this one part and language."""
        return finish_shard(
            self._directory,
            [self.finish_part()],
            language=language,
            languages=(language,),
            sequence_length=self._sequence_length,
            **description,
        )

    def close(self) -> None:
        """Closes the file without an index, when something went wrong; harmless after `finish`."""
        self._writer.__exit__()

    def _flush(self, *, last: bool) -> None:
        lengths = [_positions(item) for item in self._pool]
        rows = pack(lengths, self._capacity, maximum_items=self._maximum_items)
        used = [sum(lengths[item] for item in row) for row in rows]
        kept = 0
        if not last:
            kept = min(sum(length < FULL * self._capacity for length in used), len(rows) // 4)
        back = set(sorted(range(len(rows)), key=lambda row: -used[row])[len(rows) - kept :])
        self._write([row for number, row in enumerate(rows) if number not in back], lengths)
        self._pool = [self._pool[item] for number in sorted(back) for item in rows[number]]
        self._held = sum(_positions(item) for item in self._pool)

    def _write(self, rows: list[list[int]], lengths: list[int]) -> None:
        if not self._may_cut:
            for row in rows:
                self._write_row([piece for item in row for piece in self._pool[item]])
            return
        for spans in fill_gaps(lengths, rows, self._capacity, FULL):
            self._write_row([self._pool[item][0].part(start, stop) for item, start, stop in spans])

    def _write_row(self, pieces: list[Piece]) -> None:
        self._writer.write(PackedRow.of(self._anchor + pieces))


def _positions(item: Sequence[Piece]) -> int:
    return sum(piece.positions for piece in item)
