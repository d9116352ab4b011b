"""A step of the corpus pipeline, as datatrove runs it: on one process, on Slurm or on Ray."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Callable
from typing import Any

from datatrove.pipeline.base import PipelineStep
from loguru import logger

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.plan import Plan

# datatrove reports every step of every task; our own progress says what a person wants to know
logger.disable("datatrove")


class Phase(PipelineStep, abc.ABC):
    """One phase of the pipeline.

    Attributes:
      title: what the progress shows.
      by_file: whether a task goes through input files and reports their sizes.
      plan: the run's plan; a phase holds nothing else, so that it can be sent to any machine.
      tasks: number of tasks; 1 for a phase that looks at the whole corpus.
    """

    type = "seallm"
    name = "phase"
    title = ""
    by_file = True

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.tasks = plan.tasks
        self.advance: Callable[[int], None] | None = None

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Does task `rank`. Files that an interrupted run has finished are not done again."""
        failed = self._error_file(rank)
        failed.unlink(missing_ok=True)
        try:
            self.process(rank)
        except Exception as error:  # on other machines its message would only be in a log
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.write_text(str(error) if isinstance(error, SeallmError) else f"{type(error).__name__}: {error}")
            raise

    def files_of(self, task: int) -> list[int]:
        """Numbers of the input files that a task of this phase goes through."""
        return self.plan.files_of(task) if self.tasks > 1 else list(range(len(self.plan.files)))

    @property
    def logging_directory(self) -> str:
        """Where datatrove notes which tasks are done."""
        return str(self.plan.work / "datatrove" / self.name)

    @property
    def num_done(self) -> int:
        """Number of finished tasks."""
        return len(list((self.plan.work / "datatrove" / self.name / "completions").glob("*")))

    def check(self, system: str) -> None:
        """Raises SeallmError when tasks are left, with the reason of the first one that failed."""
        if left := self.tasks - self.num_done:
            errors = [path.read_text() for task in range(self.tasks) if (path := self._error_file(task)).exists()]
            reason = f": {errors[0].splitlines()[0]}" if errors and errors[0] else ""
            raise SeallmError(
                f"{left} of {self.tasks} tasks of {self.title} have not finished on {system}{reason}; "
                f"see {self.logging_directory}, and run again to continue"
            )

    @abc.abstractmethod
    def process(self, task: int) -> None:
        """Does one task."""

    def report(self, amount: int) -> None:
        """Tells the progress, where the phase runs in the process that shows it."""
        if self.advance is not None:
            self.advance(amount)

    def _error_file(self, task: int) -> pathlib.Path:
        return self.plan.work / "errors" / f"{self.name}-{task:05d}.txt"
