"""The part of a layer that looks at other positions.

Shape letters: B rows, T positions, M hidden size, H query heads, K key/value heads, D head size, S keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.norm import RMSNorm, rms_norm
from seallm_jax.models.projection import Projection
from seallm_jax.models.remat import QUERY_KEY_VALUE
from seallm_jax.models.rotary import RotaryTable, rotate


class Context(NamedTuple):
    """What a layer needs to know of the rows.

    Attributes:
      rotary: how far queries and keys are turned; None when they are not.
      attend: attention within the documents of these rows, given q, k and v.
      place: lays an array out on the mesh by the names of its axes.
      on_tpu: what the layer is compiled for.
    """

    rotary: RotaryTable | None
    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    place: Callable[..., jax.Array]
    on_tpu: bool = False


class Attention(nnx.Module):
    """Attention with grouped key/value heads, optionally on normalised queries and keys."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        M, H, K, D = config.hidden_size, config.num_heads, config.num_key_value_heads, config.head_size
        projection = functools.partial(Projection, config, rngs=rngs, param_dtype=param_dtype)
        self.query = projection("btm,mhd->bthd", (M, H, D), bias=config.query_key_value_bias)
        self.key = projection("btm,mkd->btkd", (M, K, D), bias=config.query_key_value_bias)
        self.value = projection("btm,mkd->btkd", (M, K, D), bias=config.query_key_value_bias)
        self.output = projection("bthd,hdm->btm", (H, D, M), bias=config.output_bias)
        self.query_norm = self._head_norm(config, H, param_dtype)
        self.key_norm = self._head_norm(config, K, param_dtype)

    def __call__(
        self, x_BxTxM: jax.Array, context: Context, cache: KeyValueCache | None, index: jax.Array
    ) -> tuple[jax.Array, KeyValueCache | None]:
        """([B, T, M], the cache with the keys and values of layer `index`)."""
        q_BxTxHxD, k_BxSxKxD, v_BxSxKxD = self.query(x_BxTxM), self.key(x_BxTxM), self.value(x_BxTxM)
        if self.query_norm is not None and self.key_norm is not None:
            q_BxTxHxD, k_BxSxKxD = self.query_norm(q_BxTxHxD), self.key_norm(k_BxSxKxD)
        if context.rotary is not None:
            turn = functools.partial(rotate, table=context.rotary, by_product=context.on_tpu)
            q_BxTxHxD, k_BxSxKxD = turn(q_BxTxHxD), turn(k_BxSxKxD)
        q_BxTxHxD, k_BxSxKxD, v_BxSxKxD = (
            checkpoint_name(x, QUERY_KEY_VALUE) for x in (q_BxTxHxD, k_BxSxKxD, v_BxSxKxD)
        )
        q_BxTxHxD = context.place(q_BxTxHxD, "batch", "sequence", "heads", None)
        k_BxSxKxD = context.place(k_BxSxKxD, "batch", "sequence", "key_value_heads", None)
        v_BxSxKxD = context.place(v_BxSxKxD, "batch", "sequence", "key_value_heads", None)
        if cache is not None:
            cache = cache.write(index, k_BxSxKxD, v_BxSxKxD)
            k_BxSxKxD, v_BxSxKxD = (x[index].astype(x_BxTxM.dtype) for x in (cache.keys, cache.values))
        return self.output(context.attend(q_BxTxHxD, k_BxSxKxD, v_BxSxKxD)), cache

    @staticmethod
    def _head_norm(config: ModelConfig, heads: int, param_dtype: Any) -> RMSNorm | None:
        """A norm over each head, or over all of them."""
        if config.query_key_norm == "none":
            return None
        across = (heads,) if config.query_key_norm == "projection" else ()
        return rms_norm(config, (*across, config.head_size), param_dtype=param_dtype)
