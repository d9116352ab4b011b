"""Collects documents, packs them best-fit in large groups, and writes the rows of one source."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from seallm_jax.data.packing import fill_gaps, pack
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ShardIndex, ShardWriter

POOL_POSITIONS = 1 << 22  # held at least, and
POOL_ROWS = 64  # this many rows
FULL = 0.99


class RowPacker:
    """Rows of one source.

    Documents are held until `pool_positions` positions (by default some four million) are there, then packed. Rows that
    are not full go back to the pool (a quarter of them at most), so that a long source is packed as well as a short
    one, in bounded memory. Running text may be cut where rows would be less than 99 % full together.

    Attributes:
      documents: documents added so far.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        sequence_length: int,
        *,
        maximum_items: int = 0,
        may_cut: bool = False,
        pool_positions: int = 0,
    ):
        self._sequence_length = sequence_length
        self._maximum_items = maximum_items
        self._may_cut = may_cut
        self._pool_positions = pool_positions or max(POOL_POSITIONS, POOL_ROWS * sequence_length)
        self._writer = ShardWriter(directory)
        self._pool: list[Sequence[Piece]] = []
        self._held = 0
        self._truncated = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self.documents = 0

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

    def finish(self, *, kind: str, language: str, tokenizer_digest: str, inputs_digest: str) -> ShardIndex:
        """Writes what is left, and the index."""
        self._flush(last=True)
        details: dict[str, Any] = {"truncated": self._truncated, "dropped": dict(self._dropped)}
        return self._writer.finish(
            kind=kind,
            language=language,
            languages=(language,),
            sequence_length=self._sequence_length,
            tokenizer_digest=tokenizer_digest,
            inputs_digest=inputs_digest,
            documents=self.documents,
            details=details,
        )

    def close(self) -> None:
        """Closes the file without an index, when something went wrong; harmless after `finish`."""
        self._writer.__exit__()

    def _flush(self, *, last: bool) -> None:
        lengths = [_positions(item) for item in self._pool]
        rows = pack(lengths, self._sequence_length, maximum_items=self._maximum_items)
        used = [sum(lengths[item] for item in row) for row in rows]
        kept = 0
        if not last:
            kept = min(sum(length < FULL * self._sequence_length for length in used), len(rows) // 4)
        back = set(sorted(range(len(rows)), key=lambda row: -used[row])[len(rows) - kept :])
        self._write([row for number, row in enumerate(rows) if number not in back], lengths)
        self._pool = [self._pool[item] for number in sorted(back) for item in rows[number]]
        self._held = sum(_positions(item) for item in self._pool)

    def _write(self, rows: list[list[int]], lengths: list[int]) -> None:
        if not self._may_cut:
            for row in rows:
                self._writer.write(PackedRow.of([piece for item in row for piece in self._pool[item]]))
            return
        for spans in fill_gaps(lengths, rows, self._sequence_length, FULL):
            pieces = [self._pool[item][0].part(start, stop) for item, start, stop in spans]
            self._writer.write(PackedRow.of(pieces))


def _positions(item: Sequence[Piece]) -> int:
    return sum(piece.positions for piece in item)
