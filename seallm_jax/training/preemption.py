"""Orderly end of a run whose machine is taken away: SIGTERM, one checkpoint, exit code 75."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from seallm_jax.core.errors import SeallmError

EXIT_PREEMPTED = os.EX_TEMPFAIL  # 75: "try again later"; launchers start the same command again


class Preempted(SeallmError):  # noqa: N818, it is no error of the user's
    """The run was told to stop and saved a checkpoint. The same command continues from it."""

    exit_code = EXIT_PREEMPTED


class PreemptionWatch:
    """While entered, notices SIGTERM instead of dying from it.

    With one process a signal handler sets a flag; it is installed in the main thread only, where Python allows it, and
    the handler that was there before comes back afterwards. With several processes JAX's preemption service, which
    listens to the same signal, agrees on one step at which all of them stop.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: Any = None
        self._installed = False

    def __enter__(self) -> PreemptionWatch:
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._previous if self._previous is not None else signal.SIG_DFL)
            self._installed = False

    def should_stop(self, step: int) -> bool:
        """Whether to save after `step` and stop. With several processes, all must ask after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._requested = True
