"""An embedding or a head with frozen rows, and an adapter or new rows on top."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.decoder import VocabularyMatrix


class AdaptedVocabulary(VocabularyMatrix):
    """`kernel` [V, M], plus `scale` times a low-rank product, or with the rows of the new tokens replaced.

    Attributes:
      lora_a: float32 [V, R] of an embedding, whose inputs are ids; [M, R] of a head; or None.
      lora_b: float32 [R, M] of an embedding, [R, V] of a head; or None.
      new_rows: float32 [N, M], the rows from `first_new_row` on; or None.
    """

    def __init__(
        self,
        base: VocabularyMatrix,
        config: ModelConfig,
        adapter: AdapterConfig,
        key: jax.Array | None,
        *,
        is_head: bool,
    ):
        """Adapts `base`, whose kernel is shared.

        Args:
          base: the frozen matrix.
          config: for the sizes.
          adapter: rank, scale, and which rows are new.
          key: draws the adapter as PEFT does: of an embedding B is normal and A zero, of a head A is uniform and B
            zero. None for no adapter; then the new rows begin as they are in `base`, if they are trained.
          is_head: whether the matrix comes last; tied embeddings count as an embedding.
        """
        self.kernel, self.scale, self.is_head = base.kernel, adapter.scale, is_head
        self.first_new_row = adapter.first_new_row
        V, M, R = config.padded_vocabulary_size, config.hidden_size, adapter.rank
        rows = base.kernel[...][adapter.first_new_row : config.vocabulary_size].astype(jnp.float32)
        self.new_rows = nnx.Param(rows) if adapter.train_new_rows else None
        if key is None:
            self.lora_a, self.lora_b = None, None
        elif is_head:
            bound = 1 / math.sqrt(M)
            self.lora_a = nnx.Param(jax.random.uniform(key, (M, R), jnp.float32, -bound, bound))
            self.lora_b = nnx.Param(jnp.zeros((R, V), jnp.float32))
        else:
            self.lora_a = nnx.Param(jnp.zeros((V, R), jnp.float32))
            self.lora_b = nnx.Param(jax.random.normal(key, (R, M), jnp.float32))

    def rows(self, tokens_BxT: jax.Array) -> jax.Array:
        """[B, T, M] in the parameters' dtype: the rows of these ids."""
        rows_BxTxM = super().rows(tokens_BxT)
        if self.new_rows is not None:
            index_BxT = tokens_BxT - self.first_new_row
            is_new_BxT = (index_BxT >= 0) & (index_BxT < self.new_rows.shape[0])
            new_BxTxM = self.new_rows[...][jnp.where(is_new_BxT, index_BxT, 0)]
            return jnp.where(is_new_BxT[..., None], new_BxTxM, rows_BxTxM)
        if self.lora_a is None or self.lora_b is None:
            return rows_BxTxM
        a_BxTxR = self.lora_a[...][tokens_BxT]
        added_BxTxM = jnp.einsum("btr,rm->btm", a_BxTxR, self.lora_b[...], precision=jax.lax.Precision.HIGHEST)
        return rows_BxTxM + self.scale * added_BxTxM

    def matrix(self) -> jax.Array:
        """[V, M]: the one matrix that does the same. Formed for the head, since losses and sampling take a matrix."""
        if self.new_rows is not None:
            return jax.lax.dynamic_update_slice_in_dim(
                self.kernel[...], self.new_rows[...].astype(self.kernel.dtype), self.first_new_row, axis=0
            )
        if self.lora_a is None or self.lora_b is None:
            return super().matrix()
        equation = "mr,rv->vm" if self.is_head else "vr,rm->vm"
        product = jnp.einsum(equation, self.lora_a[...], self.lora_b[...], precision=jax.lax.Precision.HIGHEST)
        return self.kernel[...] + self.scale * product

    def merged_kernel(self) -> jax.Array:
        """The matrix in float32."""
        return self.matrix().astype(jnp.float32)
