"""Errors that a person can act on."""


class SeallmError(Exception):
    """Something the user can mend. The message is one line: what is wrong, the offending value, the way out.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(SeallmError):
    """A wrong command line or configuration: exit code 2."""

    exit_code = 2
