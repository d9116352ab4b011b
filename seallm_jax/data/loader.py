"""Batches in the order of the curriculum: any row on from any place, on any number of hosts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import grain
import numpy as np

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.data.batch_plan import BatchPlan
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.reference import ReferenceLogps
from seallm_jax.data.row import PackedRow
from seallm_jax.data.row_arrays import row_arrays
from seallm_jax.data.shard_index import ShardIndex
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
        """Rows of the whole curriculum, whole batches."""
        return self.curriculum.total_rows

    @property
    def plan(self) -> BatchPlan:
        """Which rows each step takes."""
        return self.curriculum.batches

    @property
    def sequence_length(self) -> int:
        """T."""
        return self.curriculum.sequence_length

    @property
    def document_length(self) -> int:
        """Usual length of a document in the rows that the curriculum serves; see `usual_document_length`."""
        served = self.curriculum.served(self.total_rows)
        return usual_document_length([reader.index for reader in self._readers], served, self.sequence_length)

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

    def served(self, rows: int) -> dict[str, int]:
        """How many of the first `rows` rows each source serves, by name."""
        names = (source.name for source in self.curriculum.sources)
        return dict(zip(names, self.curriculum.served(rows).tolist(), strict=True))

    def __len__(self) -> int:
        return self.total_rows

    def read(self, start: int, count: int) -> Batch:
        """Global rows start .. start + count - 1 as numpy arrays."""
        sources, rows = self._places(start, count)
        packed = [PackedRow.empty()] * count
        for source in np.unique(sources).tolist():
            here = np.flatnonzero(sources == source).tolist()
            for place, row in zip(here, self._readers[source].read(rows[here].tolist()), strict=True):
                packed[place] = row
        served = sources.tolist()
        fields = row_arrays(
            packed,
            self.sequence_length,
            [self._languages[source] for source in served],
            [self._readers[source].index.mode for source in served],
        )
        if self.reference_columns:
            fields["reference_logps"] = np.stack(
                [self._reference(source, row) for source, row in zip(served, rows.tolist(), strict=True)]
            )
        return Batch(**fields)

    def batches(self, start_row: int = 0, rows: slice | None = None) -> Iterator[Batch]:
        """Batches of numpy arrays from the step that begins at global row `start_row` to the end.

        Args:
          start_row: where to begin: the rows of the steps that are done.
          rows: the rows of a batch of `curriculum.batch_rows` that this host reads, 0 <= start < stop <= batch_rows; of
            a batch of another size the same share. None for all. The order of the rows does not depend on it.

        Raises:
          ValueError: rows outside the batch or no whole number of another one, or a row that no step begins with.
        """
        whole = self.curriculum.batch_rows
        start, stop, step = (rows or slice(None)).indices(whole)
        shares = [(edge * size % whole) for edge in (start, stop) for size in self.plan.sizes]
        if step != 1 or start >= stop or any(shares):
            raise ValueError(f"rows {rows} of batches of {whole}, with batches of {self.plan.sizes} rows")
        done = self.plan.steps_before(start_row)

        def place(number: int) -> tuple[int, int]:
            first, size = self.plan.rows_before(done + number), self.plan.size_at(done + number)
            return first + start * size // whole, (stop - start) * size // whole

        selection = _Selection(self, self.plan.total_steps - done, place)
        if not len(selection):
            return
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch)
        yield from grain.MapDataset.source(selection).to_iter_dataset(options)

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

    def _places(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and row within it of each of these global rows."""
        first, last = start // ASSIGNED_AT_ONCE, (start + count - 1) // ASSIGNED_AT_ONCE
        blocks = [self._assigned(block) for block in range(first, last + 1)]
        inside = slice(start - first * ASSIGNED_AT_ONCE, start - first * ASSIGNED_AT_ONCE + count)
        sources, rows = (np.concatenate(parts)[inside] for parts in zip(*blocks, strict=True))
        return sources, rows

    def _assign_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        start = block * ASSIGNED_AT_ONCE
        return self.curriculum.assign(start, min(ASSIGNED_AT_ONCE, self.total_rows - start))


def read_in_order(reader: ShardReader, languages: Languages, batch_rows: int) -> Iterator[tuple[slice, Batch]]:
    """(rows, batch) over a shard from its first row to its last, as for computing reference log-probabilities.

    The last batch is filled up with empty rows (segment 0 everywhere); `rows` says which rows of the shard it holds.
    """
    language_ids = reader.language_ids(languages)
    length = reader.index.sequence_length
    for start in range(0, len(reader), batch_rows):
        stop = min(start + batch_rows, len(reader))
        packed = reader.read(range(start, stop))
        packed += [PackedRow.empty()] * (batch_rows - len(packed))
        modes = [reader.index.mode] * batch_rows
        yield slice(start, stop), Batch(**row_arrays(packed, length, [language_ids] * batch_rows, modes))


def usual_document_length(
    indices: Sequence[ShardIndex], served: Sequence[int] | np.ndarray, sequence_length: int
) -> int:
    """Length of the document that a position lies in, on average over the rows served: what attention's work goes by.

    Args:
      indices: the sources. Those that do not record their lengths are left out.
      served: rows that each of them serves.
      sequence_length: T, the largest answer.

    Returns:
      The nearest power of two, so that other data do not mean another program; 0 where no source knows.
    """
    known = [(index, rows / index.rows) for index, rows in zip(indices, served, strict=True) if index.squares]
    positions = sum(index.positions * epochs for index, epochs in known)
    if not positions:
        return 0
    mean = sum(index.squares * epochs for index, epochs in known) / positions
    return min(2 ** round(math.log2(mean)), sequence_length)


class _Selection:
    """The batches of one host as a source for Grain: element i is the rows `place(i)` = (start, count)."""

    def __init__(self, loader: TrainLoader, length: int, place: Callable[[int], tuple[int, int]]):
        self._loader = loader
        self._length = length
        self._place = place

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        return self._loader.read(*self._place(index))
