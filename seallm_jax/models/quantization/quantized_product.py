"""Matrix products in 8 bits: both operands are rounded on the way in, what is kept and what is summed is not.

int8 goes by steps of 1/127.5 of the largest value that is summed together; fp8 is e4m3 forwards and e5m2 for gradients
(arXiv 2209.05433), scaled so that the largest value is the largest number of the format. Scales are found anew in each
call: one for each token, one for each output of the kernel. Rounding and products are qwix's functions on arrays.

The gradient is that of the rounded kernel, straight through the rounding. The gradient of the input is a product in 8
bits, too. That of the kernel, which sums over all tokens, is one in the dtype of the activations: one scale would have
to serve them all. So two of three products are in 8 bits.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.errors import SeallmError
from seallm_jax.kernels.precision import matmul_precision


@dataclasses.dataclass(frozen=True)
class Format:
    """Dtypes of what is multiplied: inputs and kernels, and gradients."""

    operand: Any
    gradient: Any


FORMATS = {
    "int8": Format(jnp.int8, jnp.int8),
    "fp8": Format(jnp.float8_e4m3fn, jnp.float8_e5m2),
}

# Devices whose matrix units multiply a format faster than bfloat16, by what the compiler of TPUs reckons.
FASTER = {
    "int8": ("TPU v5 lite", "TPU v5", "TPU v6 lite"),
    "fp8": ("TPU7x",),
}
FIRST_GPU_WITH_FP8 = (8, 9)

logger = logging.getLogger(__name__)


def warn_unless_faster(format: str, device: jax.Device) -> None:
    """Logs a line where products in a format are rounded, and no faster than in bfloat16 for it."""
    if device.platform == "tpu":
        faster = device.device_kind in FASTER[format]
    elif device.platform == "gpu":
        capability = tuple(map(int, device.compute_capability.split(".")))
        faster = format == "int8" or capability >= FIRST_GPU_WITH_FP8
    else:
        faster = False
    if not faster:
        logger.warning("matmul_dtype=%s rounds, and is no faster than none on %s", format, device.device_kind)


def quantized_product(equation: str, x: jax.Array, kernel: jax.Array, format: str) -> jax.Array:
    """`jnp.einsum(equation, x, kernel)` with both rounded to 8 bits, in the dtype of `x`.

    Args:
      equation: such as `btm,mhd->bthd`: dimensions of `x` first in the result, those of the kernel after them.
      x: activations, float32 or bfloat16, with a scale for each position of the dimensions that the result keeps.
      kernel: float32 or bfloat16, with a scale for each output.
      format: int8 or fp8.

    Raises:
      SeallmError: qwix is not installed.
    """
    return _product(equation, format, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation: str, format: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _forward(equation, format, x, kernel)[0]


def _forward(equation, format, x, kernel):
    x_letters, kernel_letters, result = _letters(equation)
    dtype = FORMATS[format].operand
    rounded = _rounded(kernel, dtype, kernel_letters, result)
    y = _qwix().einsum(equation, _rounded(x, dtype, x_letters, result), rounded)
    nothing = jnp.zeros((0,), kernel.dtype)  # carries the dtype that the gradient has
    return y.astype(x.dtype), (x, rounded, nothing)


def _backward(equation, format, residuals, d_y):
    x, rounded, nothing = residuals
    x_letters, kernel_letters, result = _letters(equation)
    # A scale of the kernel belongs to an output, over which this product sums: the gradient takes it.
    outputs = [size for size, letter in zip(rounded.scale.shape, kernel_letters, strict=True) if letter in result]
    scaled = d_y.astype(jnp.float32) * rounded.scale.reshape(outputs)
    d_result = _rounded(scaled, FORMATS[format].gradient, result, x_letters)
    d_x = _qwix().einsum(f"{result},{kernel_letters}->{x_letters}", d_result, rounded.qvalue)
    d_kernel = jnp.einsum(f"{x_letters},{result}->{kernel_letters}", x, d_y, precision=matmul_precision(x.dtype))
    return d_x.astype(x.dtype), d_kernel.astype(nothing.dtype)


_product.defvjp(_forward, _backward)


def _rounded(array: jax.Array, dtype: Any, letters: str, kept: str) -> Any:
    """The array as qwix's QArray, with float32 scales, one for each place along the dimensions that are kept."""
    axes = [axis for axis, letter in enumerate(letters) if letter in kept]
    return _qwix().quantize(array.astype(jnp.float32), dtype, channelwise_axes=axes)


def _letters(equation: str) -> tuple[str, str, str]:
    """Dimensions of the input, the kernel and the result."""
    operands, result = equation.split("->")
    x, kernel = operands.split(",")
    outputs = "".join(letter for letter in kernel if letter in result)
    assert result.endswith(outputs), equation  # a scale for each output lies along the last dimensions
    return x, kernel, result


def _qwix() -> Any:
    try:
        import qwix
    except ModuleNotFoundError:
        raise SeallmError("matmul_dtype=int8 or fp8 needs qwix: pip install 'seallm_jax[quantization]'") from None
    return qwix
