"""Choice of an operator's implementation, logged once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence

import jax

from seallm_jax.core.errors import SeallmError

logger = logging.getLogger(__name__)


def device_of(mesh: jax.sharding.Mesh | None) -> jax.Device:
    """A device on which an operator will run; all of a mesh are of one kind."""
    return jax.devices()[0] if mesh is None else mesh.devices.flat[0]


def select_implementation(
    operator: str, requested: str, obstacles: Mapping[str, str | None], preferred: Sequence[str]
) -> str:
    """For "auto" the first of `preferred` that can serve the call, else `requested`.

    Args:
      operator: its name, for messages.
      requested: auto, or a name.
      obstacles: by implementation, why it cannot serve the call; None where it can.
      preferred: implementations for this platform, the best first; the last one can always serve.

    Raises:
      SeallmError: `requested` does not exist, or cannot serve the call.
    """
    if requested == "auto":
        chosen = next(name for name in preferred if obstacles[name] is None)
        passed_over = preferred[: preferred.index(chosen)]
        _log_once(operator, chosen, requested, tuple(f"{name}: {obstacles[name]}" for name in passed_over))
        return chosen
    if requested not in obstacles:
        raise SeallmError(f"{operator} has no implementation {requested!r}; use auto or one of {', '.join(obstacles)}")
    if obstacles[requested] is not None:
        raise SeallmError(f"{operator}: {requested} cannot serve this call, because {obstacles[requested]}; use auto")
    _log_once(operator, requested, requested, ())
    return requested


@functools.cache
def _log_once(operator: str, chosen: str, requested: str, passed_over: tuple[str, ...]) -> None:
    reasons = "".join(f"; not {reason}" for reason in passed_over)
    logger.info("%s: %s (%s was asked for%s)", operator, chosen, requested, reasons)
