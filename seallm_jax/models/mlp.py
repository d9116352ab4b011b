"""The position-wise part of a layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.projection import Projection

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class MLP(nnx.Module):
    """Gated (arXiv 2002.05202): down(activation(gate(x)) * up(x)). Plain: down(activation(up(x)))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        M, F = config.hidden_size, config.intermediate_size
        projection = functools.partial(Projection, config, bias=config.mlp_bias, rngs=rngs, param_dtype=param_dtype)
        self.activation = config.activation
        self.gate = projection("btm,mf->btf", (M, F)) if config.gated else None
        self.up = projection("btm,mf->btf", (M, F))
        self.down = projection("btf,fm->btm", (F, M))

    def __call__(self, x_BxTxM: jax.Array, place: Callable[..., jax.Array]) -> jax.Array:
        """[B, T, M]; `place` lays an array out on the mesh by the names of its axes."""
        activate = ACTIVATIONS[self.activation]
        if self.gate is None:
            inner_BxTxF = activate(self.up(x_BxTxM))
        else:
            inner_BxTxF = activate(self.gate(x_BxTxM)) * self.up(x_BxTxM)
        return self.down(place(inner_BxTxF, "batch", "sequence", "intermediate"))
