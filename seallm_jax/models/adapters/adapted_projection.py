"""A projection with a frozen kernel and, perhaps, a low-rank adapter."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.models.projection import Projection
from seallm_jax.models.quantization.quantized_kernel import QuantizedKernel


class AdaptedProjection(Projection):
    """`base(x) + scale * (dropout(x) A) B` (arXiv 2106.09685); the sum of kernel and A B is never formed.

    Attributes, beside those of a `Projection`, all stacked over layers where the kernel is:
      lora_a: float32 (inputs..., R), or None where only the base is quantised.
      lora_b: float32 (R, outputs...).
      dropout_key: a key for each layer while training with dropout, else None; see `enable_dropout`.
    """

    def __init__(self, base: Projection, adapter: AdapterConfig, key: jax.Array | None, *, stacked: bool):
        """Adapts `base`, whose kernel and bias are shared.

        Args:
          base: the frozen projection.
          adapter: rank, scale, dropout and how the kernel is kept.
          key: draws A as PEFT does, uniformly within 1 / sqrt(inputs); B begins at zero. None for no adapter.
          stacked: whether the parameters have a leading axis of layers.
        """
        self.equation, self.bias = base.equation, base.bias
        self.scale, self.dropout = adapter.scale, adapter.dropout
        self.dropout_key: nnx.Variable | None = nnx.data(None)
        operands, self._result = base.equation.split("->")
        self._x, self._kernel = operands.split(",")
        inputs = sum(letter in self._x for letter in self._kernel)
        shape = base.kernel.shape
        layers, shape = shape[: int(stacked)], shape[int(stacked) :]
        self.kernel: Any = base.kernel
        if adapter.quantize != "none":
            self.kernel = QuantizedKernel(adapter.quantize, base.kernel[...], inputs=inputs, stacked=stacked)
        if key is None:
            self.lora_a, self.lora_b = None, None
        else:
            bound = 1 / math.sqrt(math.prod(shape[:inputs]))
            a_shape = (*layers, *shape[:inputs], adapter.rank)
            self.lora_a = nnx.Param(jax.random.uniform(key, a_shape, jnp.float32, -bound, bound))
            self.lora_b = nnx.Param(jnp.zeros((*layers, adapter.rank, *shape[inputs:]), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        base = super().__call__
        # numbers made from codes are made again in the backward pass, or they would be kept for it in every layer
        y = jax.checkpoint(base)(x) if isinstance(self.kernel, QuantizedKernel) else base(x)
        if self.lora_a is None or self.lora_b is None:
            return y
        if self.dropout_key is not None:
            keep = jax.random.bernoulli(self.dropout_key[...], 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), 0)
        inputs = "".join(letter for letter in self._kernel if letter in self._x)
        outputs = "".join(letter for letter in self._kernel if letter not in self._x)
        rest = "".join(letter for letter in self._x if letter not in inputs)
        precision = matmul_precision(x.dtype)
        thin = jnp.einsum(f"{self._x},{inputs}R->{rest}R", x, self.lora_a[...].astype(x.dtype), precision=precision)
        added = jnp.einsum(
            f"{rest}R,R{outputs}->{self._result}", thin, self.lora_b[...].astype(x.dtype), precision=precision
        )
        return y + self.scale * added

    def merged_kernel(self) -> jax.Array:
        """The one kernel that does the same, float32, stacked over layers where the parameters are."""
        kernel = self.kernel[...].astype(jnp.float32)
        if self.lora_a is None or self.lora_b is None:
            return kernel
        inputs = "".join(letter for letter in self._kernel if letter in self._x)
        outputs = "".join(letter for letter in self._kernel if letter not in self._x)
        product = jnp.einsum(
            f"...{inputs}R,...R{outputs}->...{inputs}{outputs}",
            self.lora_a[...],
            self.lora_b[...],
            precision=jax.lax.Precision.HIGHEST,
        )
        return kernel + self.scale * product
