"""What is in a shard: the index beside its files of rows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, value_digest, write_json

INDEX_FILE = "index.json"
VERSION = 2


@dataclasses.dataclass(frozen=True)
class ShardPart:
    """One ArrayRecord file of a shard.

    Attributes:
      rows: packed rows.
      documents: documents (conversations, pairs) in them.
      positions: positions in use.
      tokens: positions whose target is learned.
      squares: sum of the squares of the segments' lengths.
      bytes: size of the file.
      max_segments: the largest number of segments in a row.
      digest: SHA-256 of its rows.
      truncated: documents that lost their end.
      dropped: documents left out, by reason.
    """

    rows: int
    documents: int
    positions: int
    tokens: int
    squares: int
    bytes: int
    max_segments: int
    digest: str
    truncated: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What is in a shard.

    Attributes:
      kind: text, text-BAND, parallel, code_switched, instructions or preferences.
      language: language of the source, or the name of a group of languages that share rows.
      languages: what the language numbers in the rows stand for.
      sequence_length: T.
      tokenizer_digest: of the tokenizer that made the ids.
      inputs_digest: of everything that the shard was made from.
      parts: its files, in the order of the rows.
      mode: how the documents of a row see one another, as in `PackingConfig`.
      inputs: for running text the files it was made from and their lines, by which a document is found again.
      version: of the format.
    """

    kind: str
    language: str
    languages: tuple[str, ...]
    sequence_length: int
    tokenizer_digest: str
    inputs_digest: str
    parts: tuple[ShardPart, ...]
    mode: str = "intra_document"
    inputs: tuple[tuple[str, int], ...] = ()
    version: int = VERSION

    @property
    def name(self) -> str:
        """Name of the source, kind/language."""
        return f"{self.kind}/{self.language}"

    @property
    def rows(self) -> int:
        """Packed rows."""
        return self._sum("rows")

    @property
    def documents(self) -> int:
        """Documents (conversations, pairs) in the rows."""
        return self._sum("documents")

    @property
    def positions(self) -> int:
        """Positions in use."""
        return self._sum("positions")

    @property
    def tokens(self) -> int:
        """Positions whose target is learned."""
        return self._sum("tokens")

    @property
    def squares(self) -> int:
        """Sum of the squares of the lengths of what a position sees: segments, or rows where they are open."""
        return self.rows * self.sequence_length**2 if self.mode == "open" else self._sum("squares")

    @property
    def bytes(self) -> int:
        """Size of all files of rows."""
        return self._sum("bytes")

    @property
    def truncated(self) -> int:
        """Documents that lost their end."""
        return self._sum("truncated")

    @property
    def dropped(self) -> dict[str, int]:
        """Documents left out, by reason."""
        reasons = sorted({reason for part in self.parts for reason in part.dropped})
        return {reason: sum(part.dropped.get(reason, 0) for part in self.parts) for reason in reasons}

    @property
    def max_segments(self) -> int:
        """The largest number of segments in a row."""
        return max((part.max_segments for part in self.parts), default=0)

    @property
    def digest(self) -> str:
        """Of all rows and of what the documents of a row see."""
        return value_digest([self.mode, *(part.digest for part in self.parts)])

    @property
    def fill(self) -> float:
        """Share of all positions that is in use."""
        return self.positions / max(self.rows * self.sequence_length, 1)

    def place(self, document: int) -> tuple[str, int]:
        """(file, line from 1) of a document of running text. Raises SeallmError where the shard does not tell."""
        first = 0
        for file, lines in self.inputs:
            if document < first + lines:
                return file, document - first + 1
            first += lines
        raise SeallmError(f"shard {self.name} does not tell where document {document} comes from")

    @classmethod
    def read(cls, directory: pathlib.Path) -> ShardIndex:
        """The index in `directory`. Raises SeallmError when it is missing, damaged or of another version."""
        path = directory / INDEX_FILE
        record = read_json(path)
        try:
            if record["version"] != VERSION:
                raise SeallmError(
                    f"shard index {path} has version {record['version']}, not {VERSION}; pack the source again"
                )
            index = cls(**{field.name: record[field.name] for field in dataclasses.fields(cls)})
            return dataclasses.replace(
                index,
                languages=tuple(index.languages),
                parts=tuple(ShardPart(**part) for part in record["parts"]),
                inputs=tuple((file, lines) for file, lines in record["inputs"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SeallmError(f"shard index {path} is damaged ({error}); pack the source again") from None

    def write(self, directory: pathlib.Path) -> None:
        """Writes `index.json`, with a few sums for the reader's eye."""
        sums = {"rows": self.rows, "tokens": self.tokens, "fill": self.fill, "digest": self.digest}
        write_json(directory / INDEX_FILE, dataclasses.asdict(self) | sums)

    def _sum(self, name: str) -> int:
        return sum(getattr(part, name) for part in self.parts)


def finish_shard(directory: pathlib.Path, parts: Sequence[ShardPart], **description: Any) -> ShardIndex:
    """Writes the index over finished parts. `description`: the other fields of ShardIndex."""
    index = ShardIndex(parts=tuple(parts), **description)
    index.write(directory)
    return index
