"""The compiled curriculum: global row -> (source, row within source), exact at every prefix and seekable."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, read_json, value_digest, write_json
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.batch_plan import BatchPlan
from seallm_jax.data.mixture import StagePlan, resolve_mixture
from seallm_jax.data.row_order import rows_served
from seallm_jax.data.schedule import WeightSchedule
from seallm_jax.data.source import Source
from seallm_jax.data.source_order import SourceOrder

VERSION = 2
MANY_EPOCHS = 4  # more repetition than this is worth little (arXiv 2305.16264)
NAMED = 8  # sources, or notes, that a table names at most


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """A pure function of stages, sources and seed; the data state of a run is one row number and `digest`.

    The source of each row is compiled once and kept, with the counts of each source at every block of rows, so that
    finding a place costs one block.

    Attributes:
      sources: what the rows come from; `assign` returns indices into it.
      stages: the stages as resolved, with notes on what differs from the configuration.
      schedule: exact integer weights of each source at each row.
      sequence_length: T, tokens of a row.
      batch_rows: rows of a step, where a stage has no batch size of its own.
      seed: the run's seed.
      order: source of each row.
    """

    sources: tuple[Source, ...]
    stages: tuple[StagePlan, ...]
    schedule: WeightSchedule
    sequence_length: int
    batch_rows: int
    seed: int
    order: SourceOrder

    @classmethod
    def compile(
        cls,
        stages: Sequence[StageConfig],
        sources: Sequence[Source],
        *,
        sequence_length: int,
        batch_rows: int,
        seed: int,
        directory: pathlib.Path | None = None,
    ) -> Curriculum:
        """Resolves the mixtures and assigns every row (about ten seconds for 10^8 rows of 500 sources).

        Args:
          stages: the mixture over time.
          sources: names must differ. A source without rows gets nothing.
          sequence_length: tokens (positions) of a row; stage budgets are divided by it.
          batch_rows: rows of an optimizer step in stages without a number of their own; the total is rounded down to
            whole batches.
          seed: folded into the order of rows within sources.
          directory: where compiled schedules are kept by digest; one that is there is not computed again.

        Raises:
          SeallmError: no rows for a mixture, a stage below one row, a total below one batch, or a damaged schedule.
        """
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise SeallmError(f"source names repeat: {', '.join(sorted(n for n in set(names) if names.count(n) > 1))}")
        if len(names) > 1 << 16:
            raise SeallmError(f"{len(names)} sources are too many; at most 65536")
        schedule, plans = resolve_mixture(stages, sources, sequence_length=sequence_length, batch_rows=batch_rows)
        facts = (tuple(sources), plans, schedule, sequence_length, batch_rows, seed)
        if directory is None:
            return cls(*facts, SourceOrder.compile(schedule))
        digest = cls(*facts, SourceOrder.empty()).digest
        folder = directory / _folder(digest)
        if not folder.exists():
            try:
                with atomic_directory(folder) as temporary:
                    cls(*facts, SourceOrder.compile(schedule, temporary))._write_facts(temporary)
            except SeallmError:
                if not folder.exists():  # another process of the run may have been first
                    raise
        return cls.load(directory, digest)

    @functools.cached_property
    def batches(self) -> BatchPlan:
        """Which rows each step takes."""
        return BatchPlan.of([stage.stop for stage in self.stages], [stage.batch_rows for stage in self.stages])

    @property
    def total_rows(self) -> int:
        """Rows of the whole curriculum, whole batches."""
        return self.schedule.rows

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole curriculum."""
        return self.batches.total_steps

    @property
    def total_tokens(self) -> int:
        """Positions of the whole curriculum."""
        return self.total_rows * self.sequence_length

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides which row comes when."""
        weights = hashlib.sha256()
        for array in (self.schedule.starts, self.schedule.weights):
            weights.update(np.ascontiguousarray(array, "<i8").tobytes())
        return value_digest(self._description() | {"weights": weights.hexdigest()})

    def assign(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows start .. start + count - 1 come from.

        Returns:
          source_index, int32 [count], and row_in_source, int64 [count].

        Raises:
          IndexError: rows outside 0 .. total_rows.
        """
        if start < 0 or count < 0 or start + count > self.total_rows:
            raise IndexError(f"rows {start} .. {start + count} are outside the curriculum's {self.total_rows} rows")
        indices = self.order.read(start, start + count)
        by_source = np.argsort(indices, kind="stable")
        first = np.searchsorted(indices[by_source], np.arange(len(self.sources)))
        services = np.empty(count, np.int64)
        services[by_source] = np.arange(count) + (self.order.served(start) - first)[indices[by_source]]
        names, rows_K = [source.name for source in self.sources], np.array([source.rows for source in self.sources])
        return indices, rows_served(names, rows_K, indices, services, self.seed)

    def served(self, prefix: int) -> np.ndarray:
        """int64 [K], how many of the rows 0 .. prefix - 1 each source serves."""
        if not 0 <= prefix <= self.total_rows:
            raise IndexError(f"prefix {prefix} is outside the curriculum's {self.total_rows} rows")
        return self.order.served(prefix)

    def weights_at(self, row: int) -> np.ndarray:
        """int64 [K], exact weights of one row, in units of 1 / schedule.scale; they sum to schedule.scale."""
        return self.schedule.weights_at(row)

    def shares_at(self, row: int) -> np.ndarray:
        """float64 [K], weights of one row as shares of 1."""
        return self.weights_at(row) / self.schedule.scale

    def stage_at(self, row: int) -> StagePlan:
        """The stage that holds `row`."""
        return next(stage for stage in self.stages if stage.start <= row < stage.stop)

    def table(self) -> list[dict[str, Any]]:
        """One record for each stage and source that it serves.

        Keys: stage, source, kind, language, rows, tokens, share (of the stage, 0 .. 1), epochs (within the stage),
        epochs_total (since the beginning) and notes (of the stage, on its first record).
        """
        records = []
        for stage in self.stages:
            notes = " ".join(f"{note}." for note in (*_shortened(stage.notes), *self._repetition_notes(stage)))
            total = self.served(stage.stop)
            rows = total - self.served(stage.start)
            weighted = self.schedule.quotas(stage.stop) > self.schedule.quotas(stage.start)
            for index in np.flatnonzero((rows > 0) | weighted):
                source = self.sources[index]
                records.append(
                    {
                        "stage": stage.name,
                        "source": source.name,
                        "kind": source.kind,
                        "language": source.language,
                        "rows": int(rows[index]),
                        "tokens": int(rows[index]) * self.sequence_length,
                        "share": float(rows[index] / max(stage.stop - stage.start, 1)),
                        "epochs": float(rows[index] / source.rows),
                        "epochs_total": float(total[index] / source.rows),
                        "notes": notes,
                    }
                )
                notes = ""
        return records

    @classmethod
    def load(cls, directory: pathlib.Path, digest: str) -> Curriculum:
        """Reads the schedule with this digest. Raises SeallmError when it is missing or damaged."""
        folder = directory / _folder(digest)
        record = read_json(folder / "schedule.json")
        try:
            starts, weights = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("starts", "weights"))
            curriculum = cls(
                sources=tuple(Source(**source) for source in record["sources"]),
                stages=tuple(StagePlan(**stage | {"notes": tuple(stage["notes"])}) for stage in record["stages"]),
                schedule=WeightSchedule(starts, weights, record["scale"]),
                sequence_length=record["sequence_length"],
                batch_rows=record["batch_rows"],
                seed=record["seed"],
                order=SourceOrder.load(folder),
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise SeallmError(f"schedule {folder} is damaged ({error}); delete it to have it compiled again") from error
        if curriculum.digest != digest or curriculum.order.rows != curriculum.total_rows:
            raise SeallmError(f"schedule {folder} does not match its digest; delete it to have it compiled again")
        return curriculum

    def _write_facts(self, directory: pathlib.Path) -> None:
        np.save(directory / "starts.npy", self.schedule.starts, allow_pickle=False)
        np.save(directory / "weights.npy", self.schedule.weights, allow_pickle=False)
        write_json(directory / "schedule.json", self._description() | {"digest": self.digest})

    def _description(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "scale": self.schedule.scale,
            "sequence_length": self.sequence_length,
            "batch_rows": self.batch_rows,
            "seed": self.seed,
        }

    def _repetition_notes(self, stage: StagePlan) -> list[str]:
        before, after = self.served(stage.start), self.served(stage.stop)
        often = [
            (float(after[index] / source.rows), source.name)
            for index, source in enumerate(self.sources)
            if source.rows and after[index] > max(MANY_EPOCHS * source.rows, before[index])
        ]
        if not often:
            return []
        often.sort(key=lambda item: -item[0])
        named = ", ".join(f"{name} {epochs:.3g} times" for epochs, name in often[:NAMED])
        more = f" and {len(often) - NAMED} more" if len(often) > NAMED else ""
        return [f"read more than {MANY_EPOCHS} times by the end, which gains little: {named}{more}"]


def _shortened(notes: Sequence[str]) -> list[str]:
    more = [f"and {len(notes) - NAMED} more like these"] if len(notes) > NAMED else []
    return [*notes[:NAMED], *more]


def _folder(digest: str) -> str:
    return f"schedule-{digest[:16]}"
