"""A kernel that is kept in few bits and read as numbers."""

from __future__ import annotations

import math
from types import EllipsisType

import jax
from flax import nnx

from seallm_jax.models.quantization.int8 import dequantize_int8, quantize_int8
from seallm_jax.models.quantization.nf4 import dequantize_nf4, quantize_nf4

FORMATS = {"int8": (quantize_int8, dequantize_int8), "nf4": (quantize_nf4, dequantize_nf4)}


class QuantizedKernel(nnx.Module):
    """Stands in for the `nnx.Param` of a projection: `kernel[...]` is its value in float32.

    `codes` and `scales` have the axes (inputs, outputs...), the inputs as one axis, behind that of stacked layers.
    """

    def __init__(self, format: str, kernel: jax.Array, *, inputs: int, stacked: bool):
        """
        Args:
          format: int8 or nf4.
          kernel: its first `inputs` dimensions, behind that of the layers, are summed over in the projection.
          inputs: how many those are.
          stacked: whether the first dimension is that of the layers.

        Raises:
          SeallmError: a kernel whose inputs do not fill the blocks of the format.
        """
        self.format = format
        self.shape = kernel.shape[int(stacked) :]  # of one layer
        self.outputs = self.shape[inputs:]
        codes, scales = (jax.vmap(self._quantize) if stacked else self._quantize)(kernel)
        self.codes, self.scales = nnx.Param(codes), nnx.Param(scales)

    def __getitem__(self, index: EllipsisType) -> jax.Array:
        codes, scales = self.codes[...], self.scales[...]
        is_stacked = codes.ndim > 1 + len(self.outputs)
        return (jax.vmap(self._dequantize) if is_stacked else self._dequantize)(codes, scales)

    def _quantize(self, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        quantize, _ = FORMATS[self.format]
        codes, scales = quantize(kernel.reshape(-1, math.prod(self.outputs)))
        return codes.reshape(-1, *self.outputs), scales.reshape(-1, *self.outputs)

    def _dequantize(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        _, dequantize = FORMATS[self.format]
        width = math.prod(self.outputs)
        return dequantize(codes.reshape(-1, width), scales.reshape(-1, width)).reshape(self.shape)
