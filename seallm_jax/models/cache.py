"""Keys and values of tokens already seen."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from seallm_jax.core.schema import ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """S slots for each of B rows, filled from the front; all rows are filled to the same slot.

    Prompts of different lengths are padded on the right: a padded slot has segment 0 and nobody sees it.

    Attributes:
      keys: [L, B, S, K, D] for L layers and K key/value heads, rotated.
      values: [L, B, S, K, D].
      segment_ids: int32 [B, S], 0 for slots that are empty or padding.
      positions: int32 [B, S], position of each token in its document.
      length: int32 scalar, slots filled.
    """

    keys: jax.Array
    values: jax.Array
    segment_ids: jax.Array
    positions: jax.Array
    length: jax.Array

    @classmethod
    def empty(cls, config: ModelConfig, rows: int, slots: int, dtype: jnp.dtype) -> KeyValueCache:
        """A cache without tokens."""
        shape = (config.num_layers, rows, slots, config.num_key_value_heads, config.head_size)
        return cls(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            segment_ids=jnp.zeros((rows, slots), jnp.int32),
            positions=jnp.zeros((rows, slots), jnp.int32),
            length=jnp.zeros((), jnp.int32),
        )

    def write(self, layer: jax.Array, k_BxTxKxD: jax.Array, v_BxTxKxD: jax.Array) -> KeyValueCache:
        """Puts one layer's keys and values of the next T tokens into the slots from `length` on."""
        start = (layer, 0, self.length, 0, 0)
        return dataclasses.replace(
            self,
            keys=jax.lax.dynamic_update_slice(self.keys, k_BxTxKxD[None].astype(self.keys.dtype), start),
            values=jax.lax.dynamic_update_slice(self.values, v_BxTxKxD[None].astype(self.values.dtype), start),
        )

    def advance(self, segment_ids_BxT: jax.Array, positions_BxT: jax.Array) -> KeyValueCache:
        """Counts the next T slots as filled, once all layers have written."""

        def put(slots_BxS: jax.Array, new_BxT: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice(slots_BxS, new_BxT.astype(slots_BxS.dtype), (0, self.length))

        return dataclasses.replace(
            self,
            segment_ids=put(self.segment_ids, segment_ids_BxT),
            positions=put(self.positions, positions_BxT),
            length=self.length + segment_ids_BxT.shape[1],
        )
