"""Profiler traces of chosen steps, for TensorBoard's profile plugin, XProf or Perfetto."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import jax


class StepProfile:
    """Traces from the dispatch of one step to the end of another."""

    def __init__(self, directory: pathlib.Path, steps: tuple[int, int] | None):
        """
        Args:
          directory: gets the traces.
          steps: the first and the last step, counted from 1; None traces nothing.
        """
        self._directory = directory
        self._first, self._last = steps or (0, 0)
        self._tracing = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of a step, which the trace names."""
        if number == self._first:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True
        if not self._tracing:
            yield
            return
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def done(self, number: int) -> None:
        """The numbers of a step have arrived."""
        if self._tracing and number >= self._last:
            self.close()

    def close(self) -> None:
        """Writes the trace if there is one going on."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
