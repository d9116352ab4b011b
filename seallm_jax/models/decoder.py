"""The decoder: one module for all model families, with a switch of `ModelConfig` for whatever they differ in.

Shape letters: B rows, T positions, M hidden size, H query heads, K key/value heads, D head size, R rotary frequencies,
V padded vocabulary, L layers, S slots of the cache. Where arrays lie on a mesh is decided in `layout.py`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import KernelConfig, ModelConfig, RopeConfig
from seallm_jax.core.sharding import ShardingRules, constrain
from seallm_jax.kernels.attention.api import attention
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.kernels.selection import device_of
from seallm_jax.models.alibi import alibi_slopes
from seallm_jax.models.attention import Attention, Context
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.fusion import apart_in_backward
from seallm_jax.models.mlp import MLP
from seallm_jax.models.norm import hidden_norm
from seallm_jax.models.remat import LAYER_INPUT, rematerialize
from seallm_jax.models.rotary import RotaryTable, rotary_table


class Decoder(nnx.Module):
    """Token ids to hidden states: layers of attention and an MLP.

    Parameters are cast where they are used. Those of the layers are stacked along a leading axis, over which the
    forward pass scans.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32):
        """Draws matrices from a normal distribution of width `initializer_range`; padded vocabulary rows are zero.

        Raises:
          SeallmError: vocabulary sizes that have not been filled in.
        """
        if not 0 < config.vocabulary_size <= config.padded_vocabulary_size:
            raise SeallmError(
                f"model.vocabulary_size is {config.vocabulary_size} and model.padded_vocabulary_size is "
                f"{config.padded_vocabulary_size}; fill them in with core.vocabulary.Vocabulary.padded(tokenizer size)"
            )
        self.config = config
        self.embedding = VocabularyMatrix(config, rngs=rngs, param_dtype=param_dtype)
        self.embedding_norm = hidden_norm(config, param_dtype=param_dtype) if config.embedding_norm else None

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stacked_layers(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs=rngs, param_dtype=param_dtype)

        self.layers = stacked_layers(rngs)
        self.final_norm = hidden_norm(config, param_dtype=param_dtype)
        if not config.tie_embeddings:
            self.head = VocabularyMatrix(config, rngs=rngs, param_dtype=param_dtype)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        positions_BxT: jax.Array,
        segment_ids_BxT: jax.Array,
        *,
        cache: KeyValueCache | None = None,
        compute_dtype: Any = jnp.bfloat16,
        remat: str = "none",
        mesh: jax.sharding.Mesh | None = None,
        rules: ShardingRules = ShardingRules(),
        kernels: KernelConfig = KernelConfig(),
    ) -> Any:
        """Hidden states of packed rows, ready for the output matrix.

        Args:
          tokens_BxT: int32 ids.
          positions_BxT: int32 position of each token in its document.
          segment_ids_BxT: int32 document of each token; 0 is padding.
          cache: keys and values of earlier tokens of the same documents; the new ones are appended.
          compute_dtype: dtype of activations and of the operands of matrix products. Norms, softmax and rotary angles
            are float32, so with float32 nothing is rounded.
          remat: what the backward pass computes again, see `core.train_config.TrainConfig`.
          mesh: lay activations out on this mesh, by `rules`.
          kernels: implementation of attention, and what it needs to know.

        Returns:
          [B, T, M] in `compute_dtype`, after the final norm. With a cache, that and the cache with the new tokens.
        """

        def place(array: jax.Array, *axes: str | None) -> jax.Array:
            return constrain(array, mesh, rules, *axes)

        key_segment_ids_BxS, query_order_BxT, key_order_BxS = segment_ids_BxT, None, None
        if cache is not None:
            # Slots are no measure of distance: padding lies between a prompt and what follows it.
            filled = cache.advance(segment_ids_BxT, positions_BxT)
            key_segment_ids_BxS, query_order_BxT, key_order_BxS = filled.segment_ids, positions_BxT, filled.positions
        slopes_H = jnp.asarray(alibi_slopes(self.config.num_heads)) if self.config.positions == "alibi" else None
        attend = functools.partial(
            attention,
            query_segment_ids_BxT=segment_ids_BxT,
            key_segment_ids_BxS=key_segment_ids_BxS,
            query_order_BxT=query_order_BxT,
            key_order_BxS=key_order_BxS,
            scale=self.config.attention_scale or None,
            soft_cap=self.config.attention_soft_cap,
            alibi_slopes_H=slopes_H,
            mesh=mesh,
            rules=rules,
            context_parallelism=kernels.context_parallelism,
            document_length=kernels.document_length,
            anchor=kernels.anchor,
            implementation=kernels.attention,
        )
        everywhere, nearby = self._kinds_of_layers(positions_BxT, segment_ids_BxT)

        on_tpu = device_of(mesh).platform == "tpu"
        graph, stacked_parameters = nnx.split(self.layers)
        alike = len(set(self.config.local_layers)) < 2

        def run_layer(carry, xs):
            hidden_BxTxM, cache = checkpoint_name(carry[0], LAYER_INPUT), carry[1]
            index, local, parameters = xs
            if alike:
                kind = nearby if any(self.config.local_layers) else everywhere
            else:
                kind = jax.tree.map(lambda x, y: x if x is y else jnp.where(local, x, y), nearby, everywhere)
            context = Context(kind.rotary, functools.partial(attend, window=kind.window), place, on_tpu)
            return nnx.merge(graph, parameters)(hidden_BxTxM, context, cache, index), None

        run_layer = rematerialize(run_layer, remat, mesh)
        # Gathered before the cast, so that the gradient of a frequent token's row is summed in float32.
        hidden_BxTxM = self.embedding.rows(tokens_BxT).astype(compute_dtype)
        if self.config.embedding_scale != 1.0:
            hidden_BxTxM *= jnp.asarray(self.config.embedding_scale, compute_dtype)
        hidden_BxTxM = place(_normed(self.embedding_norm, hidden_BxTxM), "batch", "sequence", None)
        local_L = None if alike else jnp.array(self.config.local_layers)
        xs = (jnp.arange(self.config.num_layers), local_L, stacked_parameters)
        (hidden_BxTxM, cache), _ = jax.lax.scan(run_layer, (hidden_BxTxM, cache), xs)
        hidden_BxTxM = self.final_norm(hidden_BxTxM)
        return hidden_BxTxM if cache is None else (hidden_BxTxM, cache.advance(segment_ids_BxT, positions_BxT))

    def log_probability(
        self,
        batch: Batch,
        *,
        mesh: jax.sharding.Mesh | None = None,
        rules: ShardingRules = ShardingRules(),
        kernels: KernelConfig = KernelConfig(),
        **forward: Any,
    ) -> TokenLogProbability:
        """Log-probability of each target of packed rows, and whether it is the most likely token; [B, T] each.

        Logits never exist all at once. Arguments are those of `__call__`, and `kernels.cross_entropy`.
        """
        hidden_BxTxM = self(
            batch.tokens, batch.positions, batch.segment_ids, mesh=mesh, rules=rules, kernels=kernels, **forward
        )
        return linear_log_probability(
            hidden_BxTxM,
            self.output_matrix(),
            batch.targets,
            logical_size=self.config.vocabulary_size,
            soft_cap=self.config.logit_soft_cap,
            mesh=mesh,
            rules=rules,
            implementation=kernels.cross_entropy,
        )

    def output_matrix(self) -> jax.Array:
        """[V, M] in the parameters' dtype: the head, or the embedding when they are tied."""
        return self.embedding.matrix() if self.config.tie_embeddings else self.head.matrix()

    def logits(self, hidden_BxTxM: jax.Array) -> jax.Array:
        """float32 [B, T, V], -inf in padded columns. For a few positions; losses go through the kernel instead."""
        logits_BxTxV = jnp.einsum(
            "...m,vm->...v",
            hidden_BxTxM,
            self.output_matrix().astype(hidden_BxTxM.dtype),
            precision=matmul_precision(hidden_BxTxM.dtype),
            preferred_element_type=jnp.float32,
        )
        if cap := self.config.logit_soft_cap:
            logits_BxTxV = cap * jnp.tanh(logits_BxTxV / cap)
        return jnp.where(jnp.arange(logits_BxTxV.shape[-1]) < self.config.vocabulary_size, logits_BxTxV, -jnp.inf)

    def _kinds_of_layers(self, positions_BxT: jax.Array, segment_ids_BxT: jax.Array) -> tuple[_Kind, _Kind]:
        """(layers that see everything, layers with the sliding window)."""
        config = self.config

        def table(rope: RopeConfig) -> RotaryTable:
            sizes = {"head_size": config.head_size, "max_positions": config.max_positions}
            return rotary_table(rope, positions_BxT, segment_ids_BxT, **sizes)

        rotary = table(config.rope) if config.positions == "rope" else None
        local_rotary = rotary if rotary is None or config.local_rope is None else table(config.local_rope)
        return _Kind(rotary, window=0), _Kind(local_rotary, config.sliding_window)


class _Kind(NamedTuple):
    """What layers may differ in beside their parameters."""

    rotary: RotaryTable | None
    window: int | jax.Array


class Layer(nnx.Module):
    """One block: attention, then the MLP, each added to its input; norms before, after or around both."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        before, after = config.norm_placement != "post", config.norm_placement != "pre"

        def norm(wanted: bool):
            return hidden_norm(config, param_dtype=param_dtype) if wanted else None

        self.attention_norm = norm(before)
        self.attention = Attention(config, rngs=rngs, param_dtype=param_dtype)
        self.attention_output_norm = norm(after)
        self.mlp_norm = norm(before)
        self.mlp = MLP(config, rngs=rngs, param_dtype=param_dtype)
        self.mlp_output_norm = norm(after)

    def __call__(
        self, hidden_BxTxM: jax.Array, context: Context, cache: KeyValueCache | None, index: jax.Array
    ) -> tuple[jax.Array, KeyValueCache | None]:
        """([B, T, M], the cache with the keys and values of layer `index`)."""
        x_BxTxM = _normed(self.attention_norm, hidden_BxTxM, apart=context.on_tpu)
        x_BxTxM, cache = self.attention(x_BxTxM, context, cache, index)
        hidden_BxTxM = hidden_BxTxM + _normed(self.attention_output_norm, x_BxTxM)
        hidden_BxTxM = context.place(hidden_BxTxM, "batch", "sequence", None)
        x_BxTxM = self.mlp(_normed(self.mlp_norm, hidden_BxTxM, apart=context.on_tpu), context.place)
        hidden_BxTxM = hidden_BxTxM + _normed(self.mlp_output_norm, x_BxTxM)
        return context.place(hidden_BxTxM, "batch", "sequence", None), cache


class VocabularyMatrix(nnx.Module):
    """`kernel` [V, M], a row per id. What is drawn does not depend on the padding."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        shape = (config.vocabulary_size, config.hidden_size)
        rows = config.initializer_range * jax.random.normal(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(jnp.pad(rows, ((0, config.padded_vocabulary_size - config.vocabulary_size), (0, 0))))

    def rows(self, tokens_BxT: jax.Array) -> jax.Array:
        """[B, T, M]: the rows of these ids."""
        return self.kernel[...][tokens_BxT]

    def matrix(self) -> jax.Array:
        """[V, M]: all rows."""
        return self.kernel[...]


def _normed(norm: Any, x_BxTxM: jax.Array, *, apart: bool = False) -> jax.Array:
    if norm is None:
        return x_BxTxM
    return apart_in_backward(norm(x_BxTxM)) if apart else norm(x_BxTxM)
