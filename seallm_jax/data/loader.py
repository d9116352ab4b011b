"""Batches in the order of the curriculum: any row on from any place, on any number of hosts."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.reference import ReferenceLogps
from seallm_jax.data.row import PackedRow
from seallm_jax.data.shards import ShardReader

ASSIGNED_AT_ONCE = 1024  # rows


class TrainLoader:
    """Rows in the fixed order of a curriculum. Row i is a pure function of i, so that the data state is one integer.

    Attributes:
      curriculum: decides which row comes when.
      digest: the curriculum's; it covers order and contents of the rows.
      reference_columns: width S of `Batch.reference_logps`; 0 when batches have none.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        readers: Sequence[ShardReader],
        languages: Languages,
        *,
        references: Mapping[str, ReferenceLogps] | None = None,
        threads: int = 2,
        prefetch: int = 8,
    ):
        """
        Args:
          curriculum: compiled from the readers' sources.
          readers: the shards, in any order; those that the curriculum does not use are left out.
          languages: the run's languages.
          references: source name -> reference log-probabilities, for preference sources.
          threads: threads that read and decode batches ahead.
          prefetch: batches that are kept ready at most.

        Raises:
          SeallmError: a source without a shard, or a shard that is not the one the curriculum was compiled from.
        """
        self.curriculum = curriculum
        by_name = {reader.index.name: reader for reader in readers}
        for source in curriculum.sources:
            reader = by_name.get(source.name)
            if reader is None:
                raise SeallmError(f"there is no shard for source {source.name}; run the pack stage again")
            if reader.source() != source:
                raise SeallmError(f"{reader.directory} has changed since the curriculum was compiled; compile it again")
            if reader.index.sequence_length != curriculum.sequence_length:
                raise SeallmError(
                    f"{reader.directory} holds rows of {reader.index.sequence_length} tokens, "
                    f"not {curriculum.sequence_length}; pack it again"
                )
        self._readers = [by_name[source.name] for source in curriculum.sources]
        self._languages = [reader.language_ids(languages) for reader in self._readers]
        self._references = self._ordered(references or {})
        self._threads = threads
        self._prefetch = prefetch
        self._assigned = functools.lru_cache(maxsize=64)(self._assign_block)

    @property
    def total_rows(self) -> int:
        """Rows of the whole curriculum, a multiple of its batch_rows."""
        return self.curriculum.total_rows

    @property
    def sequence_length(self) -> int:
        """T."""
        return self.curriculum.sequence_length

    @property
    def reference_columns(self) -> int:
        """Width S of `Batch.reference_logps`: the most segments of any row, made even; 0 without references."""
        known = zip(self._readers, self._references, strict=True)
        widths = [reader.index.max_segments for reader, values in known if values is not None]
        return (max(widths) + 1) // 2 * 2 if widths else 0

    @property
    def digest(self) -> str:
        """Changes when the order or the content of the rows changes."""
        return self.curriculum.digest

    def __len__(self) -> int:
        return self.total_rows

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """The fields of a `Batch` for one global row, each [T] (reference_logps: [S])."""
        sources, rows = self._assigned(row // ASSIGNED_AT_ONCE)
        source = int(sources[row % ASSIGNED_AT_ONCE])
        row_in_source = int(rows[row % ASSIGNED_AT_ONCE])
        packed = self._readers[source][row_in_source]
        fields = packed.arrays(self.sequence_length, self._languages[source])
        if self.reference_columns:
            fields["reference_logps"] = self._reference(source, row_in_source)
        return fields

    def batches(self, start_row: int = 0, rows: slice | None = None) -> Iterator[Batch]:
        """Batches of numpy arrays from global row `start_row` to the end.

        Args:
          start_row: where to begin: steps done x batch_rows.
          rows: the rows of each batch that this host reads, 0 <= start < stop <= batch_rows; None for all. The order of
            the rows does not depend on it.

        Raises:
          ValueError: rows outside the batch, or a start outside the curriculum.
        """
        whole = self.curriculum.batch_rows
        start, stop, step = (rows or slice(None)).indices(whole)
        if step != 1 or start >= stop or not 0 <= start_row <= self.total_rows:
            raise ValueError(f"rows {rows} of batches of {whole} from row {start_row} of {self.total_rows}")
        count = (self.total_rows - start_row) // whole
        if not count:
            return
        local = stop - start
        selection = _Selection(self, count * local, lambda i: start_row + i // local * whole + start + i % local)
        dataset = grain.MapDataset.source(selection).batch(local, batch_fn=_stack)
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch)
        yield from dataset.to_iter_dataset(options)

    def _ordered(self, references: Mapping[str, ReferenceLogps]) -> list[np.ndarray | None]:
        ordered: list[np.ndarray | None] = []
        for reader in self._readers:
            reference = references.get(reader.index.name)
            if references and reference is None:
                raise SeallmError(f"source {reader.index.name} has no reference log-probabilities; compute them first")
            if reference is not None and (
                len(reference.values) != len(reader) or reference.values.shape[1] < reader.index.max_segments
            ):
                raise SeallmError(
                    f"reference log-probabilities in {reference.directory} have shape {reference.values.shape}, source "
                    f"{reader.index.name} has {len(reader)} rows of up to {reader.index.max_segments} segments; "
                    "compute them again"
                )
            ordered.append(None if reference is None else reference.values)
        return ordered

    def _reference(self, source: int, row: int) -> np.ndarray:
        values = self._references[source]
        assert values is not None
        padded = np.zeros(self.reference_columns, np.float32)
        known = values[row, : self.reference_columns]
        padded[: len(known)] = known
        return padded

    def _assign_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        start = block * ASSIGNED_AT_ONCE
        return self.curriculum.assign(start, min(ASSIGNED_AT_ONCE, self.total_rows - start))


def measure_throughput(loader: TrainLoader, *, batches: int = 100, start_row: int = 0) -> dict[str, float]:
    """Reads `batches` batches and tells the speed: tokens_per_second, batches_per_second, seconds, batches."""
    iterator = loader.batches(start_row)
    next(iterator)  # opens the files and starts the threads
    done = 0
    begin = time.perf_counter()
    for _ in zip(range(batches), iterator, strict=False):
        done += 1
    seconds = time.perf_counter() - begin
    tokens = done * loader.curriculum.batch_rows * loader.sequence_length
    return {
        "tokens_per_second": tokens / seconds,
        "batches_per_second": done / seconds,
        "seconds": seconds,
        "batches": float(done),
    }


def read_in_order(reader: ShardReader, languages: Languages, batch_rows: int) -> Iterator[tuple[slice, Batch]]:
    """(rows, batch) over a shard from its first row to its last, as for computing reference log-probabilities.

    The last batch is filled up with empty rows (segment 0 everywhere); `rows` says which rows of the shard it holds.
    """
    language_ids = reader.language_ids(languages)
    length = reader.index.sequence_length
    empty = np.empty(0, np.int64)
    for start in range(0, len(reader), batch_rows):
        stop = min(start + batch_rows, len(reader))
        packed = reader.read(range(start, stop))
        packed += [PackedRow(empty, empty, empty, empty, empty)] * (batch_rows - len(packed))
        yield slice(start, stop), _stack([row.arrays(length, language_ids) for row in packed])


class _Selection:
    """The rows of one host as a source for Grain: element i is the global row `place(i)`."""

    def __init__(self, rows: TrainLoader, length: int, place: Any):
        self._rows = rows
        self._length = length
        self._place = place

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._rows[self._place(index)]


def _stack(rows: Sequence[dict[str, np.ndarray]]) -> Batch:
    return Batch(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
