"""Normalisation of activations, in float32 whatever their dtype."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.schema import ModelConfig


class RMSNorm(nnx.Module):
    """x / root mean square(x) * scale (arXiv 1910.07467), over as many trailing dimensions as the scale has.

    With `from_one` the parameter is the scale's difference from one, as in Gemma.
    """

    def __init__(self, shape: tuple[int, ...], *, epsilon: float, from_one: bool = False, param_dtype: Any):
        self.epsilon = epsilon
        self.from_one = from_one
        self.scale = nnx.Param((jnp.zeros if from_one else jnp.ones)(shape, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of the shape and dtype of `x`."""
        scale = self.scale[...].astype(jnp.float32)
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x32**2, axis=range(-scale.ndim, 0), keepdims=True) + self.epsilon)
        return (x32 * inverse * (1.0 + scale if self.from_one else scale)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean(x)) / standard deviation(x) * scale + bias (arXiv 1607.06450), over the last dimension."""

    def __init__(self, size: int, *, epsilon: float, param_dtype: Any):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(size, param_dtype))
        self.bias = nnx.Param(jnp.zeros(size, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of the shape and dtype of `x`."""
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + self.epsilon)
        scale, bias = (parameter[...].astype(jnp.float32) for parameter in (self.scale, self.bias))
        return (centred * inverse * scale + bias).astype(x.dtype)


def hidden_norm(config: ModelConfig, *, param_dtype: Any) -> RMSNorm | LayerNorm:
    """The norm that `config.norm` names, over the hidden dimension."""
    if config.norm == "layer":
        return LayerNorm(config.hidden_size, epsilon=config.norm_epsilon, param_dtype=param_dtype)
    return rms_norm(config, (config.hidden_size,), param_dtype=param_dtype)


def rms_norm(config: ModelConfig, shape: tuple[int, ...], *, param_dtype: Any) -> RMSNorm:
    """An RMS norm over these trailing dimensions; its scale is stored as `config.norm` says."""
    return RMSNorm(shape, epsilon=config.norm_epsilon, from_one=config.norm == "rms_one", param_dtype=param_dtype)
