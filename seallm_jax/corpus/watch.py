"""Waits for tasks on other machines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.phase import Phase

SECONDS_BETWEEN_LOOKS = 1.0


def watch(run: Callable[[], Any], phases: Sequence[Phase], system: str, progress: Progress) -> None:
    """Calls `run`, which returns when all tasks have ended, and shows meanwhile how many are done.

    Raises:
      SeallmError: tasks of some phase have not finished, or `run` failed.
    """
    failures: list[Exception] = []

    def target() -> None:
        try:
            run()
        except Exception as error:
            failures.append(error)

    shown = sum(phase.num_done for phase in phases)
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    title = phases[0].title if len(phases) == 1 else "all phases"
    total = sum(phase.tasks for phase in phases)
    with progress.task(f"corpus: {title} on {system} (tasks)", total=total, done=shown) as advance:
        while thread.is_alive():
            thread.join(SECONDS_BETWEEN_LOOKS)
            now = sum(phase.num_done for phase in phases)
            advance(now - shown)
            shown = now
    for phase in phases:
        phase.check(system)
    if failures:
        reason = str(failures[0]) or type(failures[0]).__name__
        raise SeallmError(f"{system}: {reason.splitlines()[0]}; run again to continue") from failures[0]
