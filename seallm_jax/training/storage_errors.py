"""Errors of the disk that checkpoints are written to, each told once and in one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from seallm_jax.core.errors import SeallmError


def is_not_told_twice(record: logging.LogRecord) -> bool:
    """Orbax's threads log a traceback for every error that `wait_until_finished` raises here, too."""
    return not (record.exc_info and f"{os.sep}orbax{os.sep}" in record.pathname)


@contextlib.contextmanager
def storage_errors(what: str, way_out: str) -> Iterator[None]:
    """What goes wrong with the disk inside becomes a SeallmError of one line: `what`, the cause, `way_out`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SeallmError(f"{what}: {first_line(error)}; {way_out}") from error


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    text = str(error).strip()
    if (full := os.strerror(errno.ENOSPC)) in text:  # after a long path
        return full
    return text.splitlines()[0][:200] if text else type(error).__name__
