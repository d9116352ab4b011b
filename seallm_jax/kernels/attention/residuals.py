"""The name under which remat policies keep what attention needs for its backward pass."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

ATTENTION_OUTPUT = "attention_output"


def name_residuals(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, named: a policy that keeps them spares the forward kernel in the backward pass."""
    return tuple(checkpoint_name(array, ATTENTION_OUTPUT) for array in arrays)
