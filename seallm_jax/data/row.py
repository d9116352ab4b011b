"""One packed row: its pieces, as bytes on disk and as the arrays of a batch."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError

_HEADER = struct.Struct("<HHII")  # version, flags, pieces, ids
_CHECKSUM = struct.Struct("<I")  # of all the rest
_VERSION = 1
_WIDE_IDS = 1  # ids take four bytes, not two
_MASKED = 2  # a bit per position tells whether its target is learned
INTEGER_FIELDS = ("tokens", "targets", "positions", "segment_ids", "language_ids")
_PIECE = np.dtype([("positions", "<u4"), ("offset", "<u4"), ("document", "<u4"), ("language", "<u2"), ("pad", "<u2")])


@dataclasses.dataclass(frozen=True)
class Piece:
    """A document, or a part of one, that is a segment of its row.

    Attributes:
      ids: int32 [n + 1]: n positions, with inputs ids[:-1] and targets ids[1:].
      language: index into the languages of the shard.
      document: number of the document in its source.
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
    """A row of pieces, all arrays ready for a batch.

    Attributes:
      ids: int32 [sum of n + 1], the ids of all pieces, one after another.
      positions, offsets, documents, languages: int64 [P], as in Piece.
      learned: bool [sum of n], or None where every target is learned.
    """

    ids: np.ndarray
    positions: np.ndarray
    offsets: np.ndarray
    documents: np.ndarray
    languages: np.ndarray
    learned: np.ndarray | None = None

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> PackedRow:
        """A row of these pieces, in this order; segment s + 1 is piece s."""
        masks = [np.ones(p.positions, bool) if p.learned is None else np.asarray(p.learned, bool) for p in pieces]
        learned = np.concatenate(masks)
        return cls(
            ids=np.concatenate([np.asarray(piece.ids, np.int32) for piece in pieces]),
            positions=np.array([piece.positions for piece in pieces], np.int64),
            offsets=np.array([piece.offset for piece in pieces], np.int64),
            documents=np.array([piece.document for piece in pieces], np.int64),
            languages=np.array([piece.language for piece in pieces], np.int64),
            learned=None if learned.all() else learned,
        )

    def pieces(self) -> list[Piece]:
        """The pieces, in order."""
        ends = np.cumsum(self.positions)
        return [
            Piece(
                ids=self.ids[end - n + number : end + number + 1],
                language=int(self.languages[number]),
                document=int(self.documents[number]),
                offset=int(self.offsets[number]),
                learned=None if self.learned is None else self.learned[end - n : end],
            )
            for number, (end, n) in enumerate(zip(ends, self.positions, strict=True))
        ]

    @property
    def length(self) -> int:
        """Positions in use."""
        return int(self.positions.sum())

    @property
    def weighted(self) -> int:
        """Positions whose target is learned."""
        return self.length if self.learned is None else int(self.learned.sum())

    def to_bytes(self) -> bytes:
        """Header, piece table, ids (two bytes each where they fit) and mask bits."""
        flags = 0
        table = np.zeros(len(self.positions), _PIECE)
        table["positions"], table["offset"] = self.positions, self.offsets
        table["document"], table["language"] = self.documents, self.languages
        if len(self.ids) and self.ids.max() > 0xFFFF:
            flags |= _WIDE_IDS
        body = table.tobytes() + self.ids.astype("<u4" if flags & _WIDE_IDS else "<u2").tobytes()
        if self.learned is not None:
            flags |= _MASKED
            body += np.packbits(self.learned).tobytes()
        header = _HEADER.pack(_VERSION, flags, len(table), len(self.ids))
        return header + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> PackedRow:
        """The inverse of `to_bytes`. Raises SeallmError for bytes that are not an undamaged row."""
        behind = _HEADER.size + _CHECKSUM.size
        if len(data) < behind:
            raise SeallmError(f"a packed row of {len(data)} bytes is cut off; pack the source again")
        version, flags, count, length = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise SeallmError(
                f"a packed row has format {version}, this version reads {_VERSION}; pack the source again"
            )
        body = memoryview(data)[behind:]
        if (zlib.crc32(body, zlib.crc32(data[: _HEADER.size])),) != _CHECKSUM.unpack_from(data, _HEADER.size):
            raise SeallmError("a packed row is damaged (its checksum differs); pack the source again")
        table = np.frombuffer(body, _PIECE, count)
        start = count * _PIECE.itemsize
        width = 4 if flags & _WIDE_IDS else 2
        ids = np.frombuffer(body, f"<u{width}", length, start).astype(np.int32)
        learned = None
        if flags & _MASKED:
            bits = np.frombuffer(body, np.uint8, offset=start + width * length)
            learned = np.unpackbits(bits, count=length - count).astype(bool)
        positions, offsets, documents, languages = (
            table[name].astype(np.int64) for name in ("positions", "offset", "document", "language")
        )
        return cls(ids, positions, offsets, documents, languages, learned)

    def arrays(self, sequence_length: int, language_ids: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of a `Batch` for this row, by name, each [T].

        Args:
          sequence_length: T.
          language_ids: int32, the run's language id of each of the shard's languages.

        Raises:
          SeallmError: the row has more than T positions.
        """
        length = self.length
        if length > sequence_length:
            raise SeallmError(
                f"a packed row has {length} positions, more than sequence_length {sequence_length}; "
                "pack again with this sequence_length"
            )
        count = len(self.positions)
        segment = np.repeat(np.arange(count, dtype=np.int32), self.positions)
        place = np.arange(length, dtype=np.int32)
        inputs = place + segment  # a piece has one id more than it has positions
        starts = np.cumsum(self.positions) - self.positions
        result = {name: np.zeros(sequence_length, np.int32) for name in INTEGER_FIELDS}
        np.take(self.ids, inputs, out=result["tokens"][:length], mode="clip")
        np.take(self.ids, inputs + 1, out=result["targets"][:length], mode="clip")
        place += np.take((self.offsets - starts).astype(np.int32), segment)
        result["positions"][:length] = place
        np.add(segment, 1, out=result["segment_ids"][:length])
        np.take(language_ids[self.languages], segment, out=result["language_ids"][:length], mode="clip")
        result["loss_weights"] = np.zeros(sequence_length, np.float32)
        result["loss_weights"][:length] = 1.0 if self.learned is None else self.learned
        return result
