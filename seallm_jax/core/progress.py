"""Progress of long steps: a bar on a terminal, a line every few seconds elsewhere; always on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Advance = Callable[..., None]


class Progress:
    """Shows what runs, how far it is and how long it will take.

    `advance(n, note)` moves a task by n and shows a short note (loss, tokens per second) beside it.
    """

    def __init__(self, *, enabled: bool = True, seconds_between_lines: float = 10.0):
        self._enabled = enabled
        self._interval = seconds_between_lines
        self._console = Console(stderr=True)

    @classmethod
    def silent(cls) -> Progress:
        """Prints nothing."""
        return cls(enabled=False)

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._enabled:
            self._console.print(text, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, name: str, total: int | None = None, *, done: int = 0) -> Iterator[Advance]:
        """Yields `advance(n=1, note="")`. `done` counts work that an earlier run finished."""
        if not self._enabled:
            yield lambda n=1, note="": None
        elif self._console.is_terminal:
            with self._bar(name, total, done) as advance:
                yield advance
        else:
            with self._lines(name, total, done) as advance:
                yield advance

    @contextlib.contextmanager
    def _bar(self, name: str, total: int | None, done: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total, completed=done, note="")

            def advance(n: int = 1, note: str = "") -> None:
                bar.advance(task, n)
                if note:
                    bar.update(task, note=note)

            yield advance

    @contextlib.contextmanager
    def _lines(self, name: str, total: int | None, done: int) -> Iterator[Advance]:
        start = last = time.monotonic()
        count = done

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal count, last
            count += n
            now = time.monotonic()
            if now - last < self._interval:
                return
            last = now
            left = f", {_duration((total - count) * (now - start) / max(count - done, 1))} left" if total else ""
            of = f"/{total}" if total else ""
            print(f"{name}: {count}{of}{left} {note}".rstrip(), file=sys.stderr, flush=True)

        yield advance
        elapsed = time.monotonic() - start
        if elapsed >= 1:
            print(f"{name}: done, {count} in {_duration(elapsed)}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
