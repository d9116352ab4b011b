"""Which rows each optimizer step takes, where the stages of a curriculum have batches of their own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Steps and rows of a run.

    A step belongs to the stage of its first row and takes that stage's number of rows, some of the next stage's among
    them where the budgets are not multiples. The last step that would not be full is left out.

    Attributes:
      spans: (steps, rows of each) of each stage, in order.
    """

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, stops: Sequence[int], batch_rows: Sequence[int]) -> BatchPlan:
        """The plan for stages that end before rows `stops` and have batches of `batch_rows`."""
        spans, row, full = [], 0, True
        for stop, size in zip(stops, batch_rows, strict=True):
            steps = max(-(-(stop - row) // size), 0) if full else 0
            if row + steps * size > stops[-1]:
                steps, full = (stops[-1] - row) // size, False
            spans.append((steps, size))
            row += steps * size
        return cls(tuple(spans))

    @property
    def total_steps(self) -> int:
        """Steps of the run."""
        return sum(steps for steps, _ in self.spans)

    @property
    def total_rows(self) -> int:
        """Rows of the run."""
        return sum(steps * size for steps, size in self.spans)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of batches that occur, ascending."""
        return tuple(sorted({size for steps, size in self.spans if steps}))

    def size_at(self, step: int) -> int:
        """Rows of the step that follows `step` steps. Raises IndexError past the end."""
        return self.spans[self.stage_at(step)][1]

    def stage_at(self, step: int) -> int:
        """Index of the stage of the step that follows `step` steps. Raises IndexError past the end."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside the {self.total_steps} steps of the run")
        return int(np.searchsorted(self.starts, step, side="right")) - 1

    def rows_before(self, step: int) -> int:
        """Rows of the first `step` steps."""
        if step == self.total_steps:
            return self.total_rows
        stage = self.stage_at(step)
        return self._rows[stage] + (step - self.starts[stage]) * self.spans[stage][1]

    def steps_before(self, rows: int) -> int:
        """The inverse of `rows_before`. Raises ValueError when `rows` is not where a step begins."""
        if rows == self.total_rows:
            return self.total_steps
        stage = int(np.searchsorted(self._rows, rows, side="right")) - 1
        steps, left = divmod(rows - self._rows[stage], self.spans[stage][1])
        if rows < 0 or rows > self.total_rows or left:
            raise ValueError(f"no step begins at row {rows}")
        return self.starts[stage] + steps

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """The step that each stage begins with."""
        return (0, *itertools.accumulate(steps for steps, _ in self.spans))[:-1]

    @functools.cached_property
    def _rows(self) -> list[int]:
        return [0, *itertools.accumulate(steps * size for steps, size in self.spans)][:-1]
