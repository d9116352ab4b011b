"""A linear map over named dimensions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.schema import ModelConfig
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.models.quantization.quantized_product import quantized_product


class Projection(nnx.Module):
    """An einsum of the input and `kernel`, plus `bias` (or None) over the dimensions that the kernel brings in.

    Attributes:
      matmul_dtype: none, or the 8 bits that both are rounded to, see `quantized_product`; `multiply_in` sets it.
      merged: whether rows and positions are one dimension of the product; `merge_positions` sets it.
    """

    matmul_dtype = "none"
    merged = False

    def __init__(
        self,
        config: ModelConfig,
        equation: str,
        shape: tuple[int, ...],
        *,
        bias: bool = False,
        rngs: nnx.Rngs,
        param_dtype: Any,
    ):
        """
        Args:
          config: for the width of the normal distribution that the kernel is drawn from; biases begin at zero.
          equation: einsum of input and kernel, such as `btm,mhd->bthd`.
          shape: of the kernel.
          bias: whether there is one.
          rngs: source of the kernel.
          param_dtype: dtype of kernel and bias.
        """
        self.equation = equation
        self.kernel = nnx.Param(config.initializer_range * jax.random.normal(rngs.params(), shape, param_dtype))
        operands, result = equation.split("->")
        added = [size for letter, size in zip(operands.split(",")[1], shape, strict=True) if letter in result]
        self.bias = nnx.Param(jnp.zeros(added, param_dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """The result in the dtype of `x`, to which the parameters are cast."""
        if self.matmul_dtype != "none":
            y = quantized_product(self.equation, x, self.kernel[...], self.matmul_dtype)
        elif self.merged:
            y = self._matrix_product(x, self.kernel[...].astype(x.dtype))
        else:
            y = jnp.einsum(self.equation, x, self.kernel[...].astype(x.dtype), precision=matmul_precision(x.dtype))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def _matrix_product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        letters, kernel_letters = self.equation.split("->")[0].split(",")
        summed = sum(letter in letters for letter in kernel_letters)  # the last of `x`, the first of `kernel`
        size = math.prod(kernel.shape[:summed])
        y = jnp.matmul(x.reshape(-1, size), kernel.reshape(size, -1), precision=matmul_precision(x.dtype))
        return y.reshape(*x.shape[: x.ndim - summed], *kernel.shape[summed:])


def multiply_in(layers: nnx.Module, matmul_dtype: str) -> None:
    """Has every projection in `layers` multiply in this format. Parameters stay what they are."""
    for _, module in nnx.iter_modules(layers):
        if isinstance(module, Projection):
            module.matmul_dtype = matmul_dtype


def merge_positions(layers: nnx.Module) -> None:
    """Has every projection in `layers` multiply matrices.

    On CPUs, XLA writes a transposed copy of each factor of a kernel's gradient that has rows and positions.
    """
    for _, module in nnx.iter_modules(layers):
        if isinstance(module, Projection):
            module.merged = True
