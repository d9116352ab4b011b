"""Matrix-product precision that follows the dtype of the operands."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def matmul_precision(dtype: jnp.dtype) -> jax.lax.Precision:
    """HIGHEST for float32, so that accelerators do not round float32 operands; DEFAULT for anything narrower."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else jax.lax.Precision.DEFAULT
