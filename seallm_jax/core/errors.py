"""Errors that a person can act on."""

from __future__ import annotations

import sys

_reported: list[int] = []


class SeallmError(Exception):
    """Something the user can mend. The message is one line: what is wrong, the offending value, the way out.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(SeallmError):
    """A wrong command line or configuration: exit code 2."""

    exit_code = 2


def report_error(error: SeallmError) -> int:
    """Prints the line of an error that ends the process, and returns its exit code."""
    print(f"seallm: error: {error}", file=sys.stderr)
    _reported.append(error.exit_code)
    return error.exit_code


def reported() -> int | None:
    """The exit code of the error that was reported; None where there was none."""
    return _reported[-1] if _reported else None
