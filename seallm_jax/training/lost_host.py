"""The end of a process whose run has lost another host: one line, exit code 69, nobody waits any longer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import jax
from jax._src.lib import utils as jaxlib_utils

from seallm_jax.core.errors import SeallmError, reported

EXIT_LOST_HOST = os.EX_UNAVAILABLE  # 69: the same command continues once all hosts are there again

# what the collectives (Gloo, NCCL, TPU) and the coordination service say of a process that is gone, in lower case
_SIGNS = ("connection closed", "connection reset", "connection refused", "broken pipe", "socket closed", "gloo", "nccl")
_STATUS = re.compile(r"[A-Z_]+: ")  # what the runtime's errors begin with
_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")

_first = threading.Lock()


def end_process(reason: str) -> NoReturn:
    """Ends this process from whichever thread. An orderly end would wait for the host that does not answer."""
    if not _first.acquire(blocking=False):
        threading.Event().wait()  # another thread is at it
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os.write(2, f"seallm: error: lost host: {reason}; the same command continues from the last checkpoint\n".encode())
    os._exit(EXIT_LOST_HOST)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    if (code := reported()) is not None:  # this process was about to end anyhow, and the others did not wait for it
        os._exit(code)
    end_process("JAX's runtime gave up, as it does when another process is gone (TF_CPP_MIN_LOG_LEVEL=0 shows more)")


def abort_is_a_lost_host() -> None:
    """From here on, `end_process` takes the place of abort().

    JAX's coordination service has no other way to end a process whose run has lost another one, and it may be the first
    to know. A handler of Python's `signal` would not run any more.
    """
    ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX's own choice
        jaxlib_utils.absl_set_min_log_level(4)  # nothing: it writes a page and a stack trace before


@contextlib.contextmanager
def ending_with_other_hosts() -> Iterator[None]:
    """Ends the process when what is done inside fails because another host is gone."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, OSError, ValueError, SeallmError) as error:
        lost = _loss(error) if jax.process_count() > 1 else None
        if lost is not None:
            end_process(lost)
        raise


def _loss(error: BaseException | None) -> str | None:
    """The first line of the error at the root of this one that tells of a process that is gone, or None."""
    while error is not None:
        line = (str(error).strip().splitlines() or [""])[0]
        # what JAX runs on the host raises ValueErrors with the runtime's text
        runtime = isinstance(error, jax.errors.JaxRuntimeError) or (
            isinstance(error, ValueError) and _STATUS.match(line) is not None
        )
        if runtime and (line.startswith(_CODES) or any(sign in line.lower() for sign in _SIGNS)):
            return line[:200]
        error = error.__cause__ or error.__context__
    return None
