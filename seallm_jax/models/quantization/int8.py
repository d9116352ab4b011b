"""8-bit integers with a scale per output. Shape letters: I inputs, O outputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def quantize_int8(kernel_IxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(codes int8 [I, O], scales float32 [1, O]) of a kernel: rounded to one of 255 steps, symmetric around zero."""
    kernel_IxO = kernel_IxO.astype(jnp.float32)
    scales = jnp.abs(kernel_IxO).max(axis=0, keepdims=True) / 127
    return jnp.round(kernel_IxO / jnp.where(scales == 0, 1.0, scales)).astype(jnp.int8), scales


def dequantize_int8(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """The kernel, float32 [I, O]."""
    return codes.astype(jnp.float32) * scales
