"""Notices that a run makes no progress: a collective with a host that hangs never returns."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from seallm_jax.training.lost_host import end_process


class Watchdog:
    """While entered, ends the process when something takes longer than its limit.

    Only seconds in which this process runs itself are counted, so that one that was stopped and goes on, or whose
    machine slept, is not taken for one that hangs.
    """

    def __init__(self, *, interval: float = 1.0, end: Callable[[str], object] = end_process):
        """
        Args:
          interval: seconds between two looks.
          end: gets the reason.
        """
        self._interval = interval
        self._end = end
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._what = ""
        self._limit = self._left = 0.0

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    @contextlib.contextmanager
    def limit(self, what: str, seconds: float) -> Iterator[None]:
        """Gives what is done inside so many seconds; 0 does not limit it.

        Args:
          what: is said to have taken too long.
        """
        with self._lock:
            self._what, self._limit, self._left = what, seconds, seconds
        try:
            yield
        finally:
            with self._lock:
                self._limit = 0.0

    def extend(self, seconds: float) -> None:
        """Gives what is being done so many seconds more."""
        with self._lock:
            if self._limit:
                self._limit += seconds
                self._left += seconds

    def _look(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            with self._lock:
                if self._limit:
                    self._left -= min(now - last, 2 * self._interval)
                late = self._limit and self._left <= 0
                reason = f"{self._what} took more than {self._limit:,.0f} seconds"
            last = now
            if late:
                self._end(reason)
                return
