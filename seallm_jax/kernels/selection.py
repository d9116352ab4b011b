"""Choice of an operator's implementation, logged once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable

from seallm_jax.core.errors import SeallmError

logger = logging.getLogger(__name__)


def select_implementation(operator: str, requested: str, available: Iterable[str], default: str) -> str:
    """`default` for "auto", else `requested`.

    Raises:
      SeallmError: `requested` is not one of `available`.
    """
    available = tuple(available)
    if requested != "auto" and requested not in available:
        raise SeallmError(f"{operator} has no implementation {requested!r}; use auto or one of {', '.join(available)}")
    chosen = default if requested == "auto" else requested
    _log_once(operator, chosen, requested)
    return chosen


@functools.cache
def _log_once(operator: str, chosen: str, requested: str) -> None:
    logger.info("%s: %s (%s was asked for)", operator, chosen, requested)
