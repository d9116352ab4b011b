"""Packed rows on disk: one ArrayRecord file and one index for each source."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.paths import read_json, write_json
from seallm_jax.data.row import PackedRow
from seallm_jax.data.source import Source

ROWS_FILE = "rows.array_record"
INDEX_FILE = "index.json"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What is in a shard.

    Attributes:
      kind: text, instructions or preferences.
      language: language of the source.
      languages: what the language numbers in the rows stand for.
      sequence_length: T.
      tokenizer_digest: of the tokenizer that made the ids.
      inputs_digest: of everything that the shard was made from.
      rows: packed rows.
      documents: documents (conversations, pairs) in them.
      positions: positions in use.
      tokens: positions whose target is learned.
      bytes: size of the file of rows.
      max_segments: the largest number of segments in a row.
      digest: SHA-256 of all rows.
      details: what else packing found: documents truncated, documents dropped by reason.
      version: of the format.
    """

    kind: str
    language: str
    languages: tuple[str, ...]
    sequence_length: int
    tokenizer_digest: str
    inputs_digest: str
    rows: int
    documents: int
    positions: int
    tokens: int
    bytes: int
    max_segments: int
    digest: str
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    version: int = VERSION

    @property
    def name(self) -> str:
        """Name of the source, kind/language."""
        return f"{self.kind}/{self.language}"

    @property
    def fill(self) -> float:
        """Share of all positions that is in use."""
        return self.positions / max(self.rows * self.sequence_length, 1)

    @classmethod
    def read(cls, directory: pathlib.Path) -> ShardIndex:
        """The index in `directory`. Raises SeallmError when it is missing, damaged or of another version."""
        path = directory / INDEX_FILE
        record = read_json(path)
        try:
            index = cls(**{field.name: record[field.name] for field in dataclasses.fields(cls)})
        except (KeyError, TypeError) as error:
            raise SeallmError(f"shard index {path} is damaged: {error} is missing; pack the source again") from None
        if index.version != VERSION:
            raise SeallmError(f"shard index {path} has version {index.version}, not {VERSION}; pack the source again")
        return dataclasses.replace(index, languages=tuple(index.languages))

    def write(self, directory: pathlib.Path) -> None:
        """Writes `index.json`."""
        write_json(directory / INDEX_FILE, dataclasses.asdict(self) | {"fill": self.fill})


class ShardWriter:
    """Writes rows one after another, then the index; a shard without an index does not exist.

    Use as a context manager; the index is written by `finish`.
    """

    def __init__(self, directory: pathlib.Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._directory = directory
        self._path = directory / ROWS_FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / INDEX_FILE).unlink(missing_ok=True)
            self._writer = ArrayRecordWriter(str(self._path), "group_size:1,uncompressed")
        except (OSError, RuntimeError) as error:
            raise SeallmError(f"cannot write {self._path}: {error}") from error
        self._digest = hashlib.sha256()
        self._open = True
        self.rows = self.positions = self.tokens = self.max_segments = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._writer.close()

    def write(self, row: PackedRow) -> bool:
        """Appends a row, unless it has no target to learn. Returns whether it was written."""
        weighted = row.weighted
        if not weighted:
            return False
        data = row.to_bytes()
        try:
            self._writer.write(data)
        except (OSError, RuntimeError) as error:
            raise SeallmError(f"cannot write {self._path}: {error}") from error
        self._digest.update(len(data).to_bytes(8, "little") + data)
        self.rows += 1
        self.positions += row.length
        self.tokens += weighted
        self.max_segments = max(self.max_segments, len(row.positions))
        return True

    def finish(self, **description: Any) -> ShardIndex:
        """Closes the file and writes the index. `description` holds the fields of ShardIndex that rows do not tell."""
        try:
            self._writer.close()
        except (OSError, RuntimeError) as error:
            raise SeallmError(f"cannot write {self._path}: {error}") from error
        self._open = False
        index = ShardIndex(
            rows=self.rows,
            positions=self.positions,
            tokens=self.tokens,
            bytes=self._path.stat().st_size,
            max_segments=self.max_segments,
            digest=self._digest.hexdigest(),
            **description,
        )
        index.write(self._directory)
        return index


class ShardReader:
    """Random access to the rows of a shard; safe to use from many threads.

    Attributes:
      directory: where the shard lies.
      index: what is in it.
    """

    def __init__(self, directory: pathlib.Path, *, tokenizer_digest: str | None = None):
        """
        Args:
          directory: tokens/<kind>/<language>.
          tokenizer_digest: the tokenizer in use; None does not check.

        Raises:
          SeallmError: the shard is missing or damaged, or was made with another tokenizer.
        """
        self.directory = pathlib.Path(directory)
        self.index = ShardIndex.read(self.directory)
        if tokenizer_digest is not None and self.index.tokenizer_digest != tokenizer_digest:
            raise SeallmError(
                f"{self.directory} was made with tokenizer {self.index.tokenizer_digest[:12]}, not with "
                f"{tokenizer_digest[:12]}; pack the source again"
            )
        self._path = self.directory / ROWS_FILE
        size = self._path.stat().st_size if self._path.exists() else -1
        if size != self.index.bytes:
            found = f"has {size} bytes" if size >= 0 else "is missing"
            raise SeallmError(f"{self._path} {found}, its index says {self.index.bytes}; pack the source again")
        self._lock = threading.Lock()
        self._reader: Any = None

    def __len__(self) -> int:
        return self.index.rows

    def __getitem__(self, row: int) -> PackedRow:
        return self.read([row])[0]

    def read(self, rows: Sequence[int]) -> list[PackedRow]:
        """These rows, in this order. Raises SeallmError, naming the shard, when one is damaged."""
        try:
            records = self._records()
            return [PackedRow.from_bytes(records[row]) for row in rows]
        except SeallmError as error:
            raise SeallmError(f"{self._path}: {error}") from error
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise SeallmError(f"{self._path} cannot be read ({_first_line(error)}); pack the source again") from error

    def verify(self) -> None:
        """Reads every row and compares the digest. Raises SeallmError when it differs."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 256):
            for row in self.read(range(start, min(start + 256, len(self)))):
                data = row.to_bytes()
                digest.update(len(data).to_bytes(8, "little") + data)
        if digest.hexdigest() != self.index.digest:
            raise SeallmError(f"{self._path} does not match the digest in its index; pack the source again")

    def source(self) -> Source:
        """This shard as a source of a curriculum."""
        return Source(self.index.name, self.index.rows, self.index.digest)

    def language_ids(self, languages: Languages) -> np.ndarray:
        """int32, the run's language id of each language of the shard. Raises SeallmError for one it does not have."""
        return np.array([languages.id_of(code) for code in self.index.languages], np.int32)

    def _records(self) -> Any:
        if self._reader is None:
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            with self._lock:
                if self._reader is None:
                    reader = ArrayRecordDataSource(str(self._path), reader_options={"max_parallelism": "0"})
                    if len(reader) != self.index.rows:
                        raise SeallmError(f"it holds {len(reader)} rows, its index says {self.index.rows}")
                    self._reader = reader
        return self._reader


def open_shards(directory: pathlib.Path, *, tokenizer_digest: str | None = None) -> list[ShardReader]:
    """All shards that have rows below `directory` (tokens/), by name.

    Raises:
      SeallmError: no shard has a row, or one is damaged or was made with another tokenizer.
    """
    readers = [
        ShardReader(path.parent, tokenizer_digest=tokenizer_digest)
        for path in sorted(pathlib.Path(directory).glob(f"*/*/{INDEX_FILE}"))
    ]
    readers = [reader for reader in readers if len(reader)]
    if not readers:
        raise SeallmError(f"there are no packed rows below {directory}; run the pack stage on text that is long enough")
    return readers


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
