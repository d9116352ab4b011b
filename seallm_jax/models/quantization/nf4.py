"""4-bit NormalFloat with a scale per block (QLoRA, arXiv 2305.14314, appendix E), as bitsandbytes stores it.

Blocks lie along the inputs of a kernel, for each output on its own. Shape letters: I inputs, O outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seallm_jax.core.errors import SeallmError

BLOCK = 64
# quantiles of the standard normal distribution, scaled to [-1, 1]; zero is among them
CODEBOOK = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def quantize_nf4(kernel_IxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(codes uint8 [I / 2, O], scales float32 [I / 64, O]) of a kernel: half a byte and 1/16 byte a number.

    A byte holds two consecutive inputs, the first in its high half. A scale is the largest magnitude of its block.

    Raises:
      SeallmError: the number of inputs is not a multiple of 64.
    """
    inputs, outputs = kernel_IxO.shape
    if inputs % BLOCK:
        raise SeallmError(
            f"a kernel with {inputs} inputs cannot be kept as nf4, whose blocks have {BLOCK}; set adapter.quantize to "
            "int8 or none"
        )
    blocks = kernel_IxO.astype(jnp.float32).reshape(inputs // BLOCK, BLOCK, outputs)
    scales = jnp.abs(blocks).max(axis=1)
    unit = blocks / jnp.where(scales == 0, 1.0, scales)[:, None]
    middles = [(low + high) / 2 for low, high in zip(CODEBOOK[:-1], CODEBOOK[1:], strict=True)]
    nearest = sum((unit > middle).astype(jnp.uint8) for middle in middles)
    pairs = jnp.asarray(nearest).reshape(inputs // 2, 2, outputs)
    return (pairs[:, 0] << 4) | pairs[:, 1], scales


def dequantize_nf4(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """The kernel, float32 [I, O]."""
    outputs = codes.shape[1]
    nibbles = jnp.stack([codes >> 4, codes & 15], axis=1).reshape(-1, BLOCK, outputs)
    return (_look_up(nibbles) * scales[:, None]).reshape(-1, outputs)


def _look_up(nibbles: jax.Array) -> jax.Array:
    """CODEBOOK[nibbles] by 15 selections, which fuse with what follows: gathers from small tables are slow on a TPU."""
    values: list[float | jax.Array] = list(CODEBOOK)
    for bit in range(4):
        is_set = (nibbles >> bit) & 1 == 1
        values = [
            jnp.where(is_set, jnp.float32(high), jnp.float32(low))
            for low, high in zip(values[::2], values[1::2], strict=True)
        ]
    return jnp.asarray(values[0])
