"""One packed row: its pieces, in memory and as bytes on disk."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError

_HEADER = struct.Struct("<HBBII")  # version, bytes of an id, flags, pieces, positions
_CHECKSUM = struct.Struct("<I")  # of all the rest
_BEHIND = _HEADER.size + _CHECKSUM.size
_VERSION = 2
_MASKED = 1  # a bit per position tells whether its target is learned
NO_DOCUMENT = 0xFFFFFFFF  # the document of a piece that belongs to none
_COLUMNS = 5  # of the piece table: positions, offset, document, last target, language


@dataclasses.dataclass(frozen=True)
class Piece:
    """A document, or a part of one, that is a segment of its row.

    Attributes:
      ids: int32 [n + 1]: n positions, with inputs ids[:-1] and targets ids[1:].
      language: index into the languages of the shard.
      document: number of the document in its source, or NO_DOCUMENT.
      offset: position number of the first input.
      learned: bool [n], whether each target is learned; None for all.
    """

    ids: np.ndarray
    language: int = 0
    document: int = 0
    offset: int = 0
    learned: np.ndarray | None = None

    @property
    def positions(self) -> int:
        """Number of positions n."""
        return len(self.ids) - 1

    def part(self, start: int, stop: int) -> Piece:
        """Positions start .. stop - 1 as a piece of their own; the id at which a piece is cut is in both parts."""
        learned = None if self.learned is None else self.learned[start:stop]
        return dataclasses.replace(self, ids=self.ids[start : stop + 1], learned=learned)


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """A row of pieces.

    A target is the next input of the row, except at the end of a piece, where the table has it: so tokens and targets
    of many rows are copies of `inputs`, without a gather (see `row_arrays`).

    Attributes:
      inputs: uint16, uint32 or int32 [n], the input ids of all pieces, one after another.
      table: uint32 [P, 5], for each piece: positions, offset, document, last target, language.
      learned: bool [n], or None where every target is learned.
    """

    inputs: np.ndarray
    table: np.ndarray
    learned: np.ndarray | None = None

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> PackedRow:
        """A row of these pieces, in this order; segment s + 1 is piece s."""
        learned = None
        if any(piece.learned is not None for piece in pieces):
            masks = [np.ones(p.positions, bool) if p.learned is None else np.asarray(p.learned, bool) for p in pieces]
            joined = np.concatenate(masks)
            learned = None if joined.all() else joined
        table = [(p.positions, p.offset, p.document, p.ids[-1], p.language) for p in pieces]
        inputs = np.concatenate([piece.ids[:-1] for piece in pieces]).astype(np.int32, copy=False)
        return cls(inputs, np.array(table, np.uint32), learned)

    @classmethod
    def empty(cls) -> PackedRow:
        """A row of padding."""
        return cls(np.empty(0, np.int32), np.empty((0, _COLUMNS), np.uint32))

    @property
    def positions(self) -> np.ndarray:
        """int64 [P], positions of each piece."""
        return self.table[:, 0].astype(np.int64)

    @property
    def documents(self) -> np.ndarray:
        """int64 [P], document of each piece: its number in the source."""
        return self.table[:, 2].astype(np.int64)

    def pieces(self) -> list[Piece]:
        """The pieces, in order."""
        made, start = [], 0
        for positions, offset, document, last, language in self.table.tolist():
            stop = start + positions
            ids = np.append(self.inputs[start:stop].astype(np.int32), np.int32(last))
            learned = None if self.learned is None else self.learned[start:stop]
            made.append(Piece(ids, language, document, offset, learned))
            start = stop
        return made

    @property
    def length(self) -> int:
        """Positions in use."""
        return len(self.inputs)

    @property
    def weighted(self) -> int:
        """Positions whose target is learned."""
        return self.length if self.learned is None else int(self.learned.sum())

    def to_bytes(self) -> bytes:
        """Header, piece table, ids (as few bytes each as hold the largest) and mask bits."""
        width = 2 + sum(int(self.inputs.max(initial=0)) >= 1 << bits for bits in (16, 24))
        ids = self.inputs.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width]
        body = self.table.astype("<u4").tobytes() + ids.tobytes()
        flags = 0
        if self.learned is not None:
            flags |= _MASKED
            body += np.packbits(self.learned).tobytes()
        header = _HEADER.pack(_VERSION, width, flags, len(self.table), self.length)
        return header + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> PackedRow:
        """The inverse of `to_bytes`; most arrays are views. Raises SeallmError for bytes that are no undamaged row."""
        if len(data) < _BEHIND:
            raise SeallmError(f"a packed row of {len(data)} bytes is cut off; pack the source again")
        version, width, flags, pieces, length = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise SeallmError(
                f"a packed row has format {version}, this version reads {_VERSION}; pack the source again"
            )
        checksum = zlib.crc32(memoryview(data)[_BEHIND:], zlib.crc32(data[: _HEADER.size]))
        if (checksum,) != _CHECKSUM.unpack_from(data, _HEADER.size):
            raise SeallmError("a packed row is damaged (its checksum differs); pack the source again")
        start = _BEHIND + 4 * _COLUMNS * pieces
        table = np.frombuffer(data, "<u4", _COLUMNS * pieces, _BEHIND).reshape(pieces, _COLUMNS)
        if width == 3:  # four bytes every three, from one byte earlier on
            inputs = np.ndarray((length,), "<u4", data, start - 1, (3,)) >> np.uint32(8)
        else:
            inputs = np.frombuffer(data, f"<u{width}", length, start)
        learned = None
        if flags & _MASKED:
            bits = np.frombuffer(data, np.uint8, offset=start + width * length)
            learned = np.unpackbits(bits, count=length).astype(bool)
        return cls(inputs, table, learned)
