"""Packed rows on disk: one index and one or more ArrayRecord files for each source."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.data.row import PackedRow
from seallm_jax.data.shard_index import INDEX_FILE, ShardIndex, ShardPart, finish_shard
from seallm_jax.data.source import Source


def rows_file(directory: pathlib.Path, part: int = 0) -> pathlib.Path:
    """The ArrayRecord file of one part of a shard."""
    return directory / f"rows-{part:05d}.array_record"


class ShardWriter:
    """Writes rows one after another. A shard without an index does not exist.

    Use as a context manager. `finish` closes the file and writes the index of a shard of one part; where a shard has
    several, each has a writer of its own that ends with `finish_part`, and `finish_shard` writes the index.
    """

    def __init__(self, directory: pathlib.Path, part: int = 0):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._directory = directory
        self._path = rows_file(directory, part)
        self._open = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / INDEX_FILE).unlink(missing_ok=True)
            self._writer = ArrayRecordWriter(str(self._path), "group_size:1,uncompressed")
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error
        self._digest = hashlib.sha256()
        self._open = True
        self.rows = self.positions = self.tokens = self.max_segments = self.squares = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._open = False
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
            raise self._failure(error) from error
        _add(self._digest, data)
        self.rows += 1
        self.positions += row.length
        self.squares += int((row.positions**2).sum())
        self.tokens += weighted
        self.max_segments = max(self.max_segments, len(row.table))
        return True

    def finish_part(self, *, documents: int, truncated: int = 0, dropped: dict[str, int] | None = None) -> ShardPart:
        """Closes the file; the arguments are what its rows do not tell, as in `ShardPart`."""
        self._open = False
        try:
            self._writer.close()
            size = self._path.stat().st_size
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error
        return ShardPart(
            rows=self.rows,
            documents=documents,
            positions=self.positions,
            tokens=self.tokens,
            squares=self.squares,
            bytes=size,
            max_segments=self.max_segments,
            digest=self._digest.hexdigest(),
            truncated=truncated,
            dropped=dropped or {},
        )

    def finish(self, *, documents: int, **description: Any) -> ShardIndex:
        """Closes the file and writes the index. `description`: the fields of ShardIndex that rows do not tell."""
        return finish_shard(self._directory, [self.finish_part(documents=documents)], **description)

    def _failure(self, error: Exception) -> SeallmError:
        return SeallmError(
            f"cannot write {self._path}: {_first_line(error)}; make room and give the same command again, "
            "it continues with what is not finished"
        )


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
        for number, part in enumerate(self.index.parts):
            path = rows_file(self.directory, number)
            size = path.stat().st_size if path.exists() else -1
            if size != part.bytes:
                found = f"has {size} bytes" if size >= 0 else "is missing"
                raise SeallmError(f"{path} {found}, its index says {part.bytes}; pack the source again")
        self._rows = self.index.rows
        self._ends = list(itertools.accumulate(part.rows for part in self.index.parts))
        self._lock = threading.Lock()
        self._parts: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> PackedRow:
        return self.read([row])[0]

    def read(self, rows: Sequence[int]) -> list[PackedRow]:
        """These rows, in this order. Raises SeallmError, naming file and row, when one is damaged."""
        packed = []
        for row in rows:
            part, place, data = self._record(row)
            try:
                packed.append(PackedRow.from_bytes(data))
            except SeallmError as error:
                raise SeallmError(f"{rows_file(self.directory, part)}, row {place}: {error}") from None
        return packed

    def verify(self) -> None:
        """Reads every row and compares the digests. Raises SeallmError when one differs."""
        for number, part in enumerate(self.index.parts):
            digest = hashlib.sha256()
            for row in range(self._ends[number] - part.rows, self._ends[number]):
                _add(digest, self._record(row)[2])
            if digest.hexdigest() != part.digest:
                path = rows_file(self.directory, number)
                raise SeallmError(f"{path} does not match the digest in its index; pack the source again")

    def source(self) -> Source:
        """This shard as a source of a curriculum."""
        return Source(self.index.name, self.index.rows, self.index.digest)

    def language_ids(self, languages: Languages) -> np.ndarray:
        """int32, the run's language id of each language of the shard. Raises SeallmError for one it does not have."""
        return np.array([languages.id_of(code) for code in self.index.languages], np.int32)

    def _record(self, row: int) -> tuple[int, int, bytes]:
        """(part, row in it, bytes) of one row."""
        if not 0 <= row < self._rows:
            raise IndexError(f"row {row} of {self._rows} rows in {self.directory}")
        part = bisect.bisect_right(self._ends, row)
        place = row - self._ends[part] + self.index.parts[part].rows
        reader = self._parts.get(part) or self._open(part)
        try:  # alone: reading several at once costs more processor time than it saves
            return part, place, reader.read([place])[0]
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise self._unreadable(part, _first_line(error), place) from error

    def _open(self, part: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        with self._lock:
            if part not in self._parts:
                try:
                    reader = ArrayRecordReader(
                        str(rows_file(self.directory, part)), options="max_parallelism:0,readahead_buffer_size:0"
                    )
                    rows = reader.num_records()
                except (OSError, RuntimeError, ValueError) as error:
                    raise self._unreadable(part, _first_line(error)) from error
                if rows != self.index.parts[part].rows:
                    raise self._unreadable(part, f"it holds {rows} rows, its index says {self.index.parts[part].rows}")
                self._parts[part] = reader
            return self._parts[part]

    def _unreadable(self, part: int, why: str, row: int | None = None) -> SeallmError:
        path = rows_file(self.directory, part)
        where = path if row is None else f"{path}, row {row}:"
        return SeallmError(f"{where} cannot be read ({why}); pack the source again")


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


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little") + data)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
