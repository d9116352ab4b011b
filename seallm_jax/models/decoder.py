"""The decoder of the Llama family (arXiv 2307.09288).

Shape letters: B rows, T positions, M hidden size, F intermediate size, H query heads, K key/value heads, D head size,
V padded vocabulary, L layers, S slots of the cache. Where arrays lie on a mesh is decided in `layout.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.sharding import ShardingRules, constrain
from seallm_jax.kernels.attention.api import attention
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.models.cache import KeyValueCache


class Decoder(nnx.Module):
    """Token ids to hidden states: pre-norm layers of attention and a gated MLP.

    Parameters are cast where they are used. Those of the layers are stacked along a leading axis, over which the
    forward pass scans.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32):
        """Draws parameters: normal with `initializer_range`, ones for norms, zeros for padded vocabulary rows.

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

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stacked_layers(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs=rngs, param_dtype=param_dtype)

        self.layers = stacked_layers(rngs)
        self.final_norm = RMSNorm(config, param_dtype=param_dtype)
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
        remat: Literal["none", "full"] = "none",
        mesh: jax.sharding.Mesh | None = None,
        rules: ShardingRules = ShardingRules(),
        attention_implementation: str = "auto",
    ) -> Any:
        """Hidden states of packed rows, ready for the output matrix.

        Args:
          tokens_BxT: int32 ids.
          positions_BxT: int32 position of each token in its document, for the rotary embedding.
          segment_ids_BxT: int32 document of each token; 0 is padding.
          cache: keys and values of earlier tokens of the same documents; the new ones are appended.
          compute_dtype: dtype of activations and of the operands of matrix products. Norms, softmax and rotary angles
            are float32, so with float32 nothing is rounded.
          remat: recompute each layer in the backward pass (full), or keep everything (none).
          mesh: lay activations out on this mesh, by `rules`.
          attention_implementation: see `seallm_jax.kernels.attention.api.attention`.

        Returns:
          [B, T, M] in `compute_dtype`, after the final norm. With a cache, that and the cache with the new tokens.
        """

        def place(array: jax.Array, *axes: str | None) -> jax.Array:
            return constrain(array, mesh, rules, *axes)

        key_segment_ids_BxS, query_order_1xT, key_order_1xS = segment_ids_BxT, None, None
        if cache is not None:
            key_segment_ids_BxS = cache.advance(segment_ids_BxT).segment_ids
            query_order_1xT = cache.length + jnp.arange(tokens_BxT.shape[1], dtype=jnp.int32)[None]
            key_order_1xS = jnp.arange(key_segment_ids_BxS.shape[1], dtype=jnp.int32)[None]
        context = Context(
            rotate=functools.partial(_rotate, angles_BxTxR=rotary_angles(positions_BxT, self.config)),
            attend=functools.partial(
                attention,
                query_segment_ids_BxT=segment_ids_BxT,
                key_segment_ids_BxS=key_segment_ids_BxS,
                query_order_BxT=query_order_1xT,
                key_order_BxS=key_order_1xS,
                implementation=attention_implementation,
            ),
            place=place,
        )

        graph, stacked_parameters = nnx.split(self.layers)

        def run_layer(carry, xs):
            hidden_BxTxM, cache = carry
            index, parameters = xs
            return nnx.merge(graph, parameters)(hidden_BxTxM, context, cache, index), None

        if remat == "full":
            run_layer = jax.checkpoint(run_layer, prevent_cse=False)
        # Gathered before the cast, so that the gradient of a frequent token's row is summed in float32.
        hidden_BxTxM = self.embedding.kernel[...][tokens_BxT].astype(compute_dtype)
        hidden_BxTxM = place(hidden_BxTxM, "batch", "sequence", None)
        layer_indices = jnp.arange(self.config.num_layers)
        (hidden_BxTxM, cache), _ = jax.lax.scan(run_layer, (hidden_BxTxM, cache), (layer_indices, stacked_parameters))
        hidden_BxTxM = self.final_norm(hidden_BxTxM)
        return hidden_BxTxM if cache is None else (hidden_BxTxM, cache.advance(segment_ids_BxT))

    def output_matrix(self) -> jax.Array:
        """[V, M] in the parameters' dtype: the head, or the embedding when they are tied."""
        return self.embedding.kernel[...] if self.config.tie_embeddings else self.head.kernel[...]

    def logits(self, hidden_BxTxM: jax.Array) -> jax.Array:
        """float32 [B, T, V], -inf in padded columns. For a few positions; losses go through the kernel instead."""
        logits_BxTxV = jnp.einsum(
            "...m,vm->...v",
            hidden_BxTxM,
            self.output_matrix().astype(hidden_BxTxM.dtype),
            precision=matmul_precision(hidden_BxTxM.dtype),
            preferred_element_type=jnp.float32,
        )
        return jnp.where(jnp.arange(logits_BxTxV.shape[-1]) < self.config.vocabulary_size, logits_BxTxV, -jnp.inf)


class Context(NamedTuple):
    """What all layers share.

    Attributes:
      rotate: turns queries or keys [B, T, heads, D] by their positions.
      attend: attention within the documents of these rows, given q, k and v.
      place: lays an array out on the mesh by the names of its axes.
    """

    rotate: Callable[[jax.Array], jax.Array]
    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    place: Callable[..., jax.Array]


class Layer(nnx.Module):
    """One block: attention, then the MLP, each on the normalised input and added to it."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        self.attention_norm = RMSNorm(config, param_dtype=param_dtype)
        self.attention = Attention(config, rngs=rngs, param_dtype=param_dtype)
        self.mlp_norm = RMSNorm(config, param_dtype=param_dtype)
        self.mlp = MLP(config, rngs=rngs, param_dtype=param_dtype)

    def __call__(self, hidden_BxTxM: jax.Array, context: Context, cache: KeyValueCache | None, index: jax.Array):
        attended_BxTxM, cache = self.attention(self.attention_norm(hidden_BxTxM), context, cache, index)
        hidden_BxTxM = context.place(hidden_BxTxM + attended_BxTxM, "batch", "sequence", None)
        hidden_BxTxM = hidden_BxTxM + self.mlp(self.mlp_norm(hidden_BxTxM), context)
        return context.place(hidden_BxTxM, "batch", "sequence", None), cache


class Attention(nnx.Module):
    """Attention with grouped key/value heads and rotary positions."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        M, H, K, D = config.hidden_size, config.num_heads, config.num_key_value_heads, config.head_size
        projection = functools.partial(Projection, config, rngs=rngs, param_dtype=param_dtype)
        self.query = projection("btm,mhd->bthd", (M, H, D))
        self.key = projection("btm,mkd->btkd", (M, K, D))
        self.value = projection("btm,mkd->btkd", (M, K, D))
        self.output = projection("bthd,hdm->btm", (H, D, M))

    def __call__(self, x_BxTxM: jax.Array, context: Context, cache: KeyValueCache | None, index: jax.Array):
        q_BxTxHxD = context.place(context.rotate(self.query(x_BxTxM)), "batch", "sequence", "heads", None)
        k_BxSxKxD = context.place(context.rotate(self.key(x_BxTxM)), "batch", "sequence", "key_value_heads", None)
        v_BxSxKxD = context.place(self.value(x_BxTxM), "batch", "sequence", "key_value_heads", None)
        if cache is not None:
            cache = cache.write(index, k_BxSxKxD, v_BxSxKxD)
            k_BxSxKxD, v_BxSxKxD = (x[index].astype(x_BxTxM.dtype) for x in (cache.keys, cache.values))
        return self.output(context.attend(q_BxTxHxD, k_BxSxKxD, v_BxSxKxD)), cache


class MLP(nnx.Module):
    """SwiGLU (arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        M, F = config.hidden_size, config.intermediate_size
        projection = functools.partial(Projection, config, rngs=rngs, param_dtype=param_dtype)
        self.gate = projection("btm,mf->btf", (M, F))
        self.up = projection("btm,mf->btf", (M, F))
        self.down = projection("btf,fm->btm", (F, M))

    def __call__(self, x_BxTxM: jax.Array, context: Context) -> jax.Array:
        gated_BxTxF = jax.nn.silu(self.gate(x_BxTxM)) * self.up(x_BxTxM)
        return self.down(context.place(gated_BxTxF, "batch", "sequence", "intermediate"))


class Projection(nnx.Module):
    """A linear map without bias, written as an einsum of the input and `kernel`."""

    def __init__(self, config: ModelConfig, equation: str, shape: tuple[int, ...], *, rngs: nnx.Rngs, param_dtype: Any):
        self.equation = equation
        self.kernel = nnx.Param(config.initializer_range * jax.random.normal(rngs.params(), shape, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum(self.equation, x, self.kernel[...].astype(x.dtype), precision=matmul_precision(x.dtype))


class VocabularyMatrix(nnx.Module):
    """`kernel` [V, M], a row per id. What is drawn does not depend on the padding."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any):
        shape = (config.vocabulary_size, config.hidden_size)
        rows = config.initializer_range * jax.random.normal(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(jnp.pad(rows, ((0, config.padded_vocabulary_size - config.vocabulary_size), (0, 0))))


class RMSNorm(nnx.Module):
    """x / root mean square(x) * scale (arXiv 1910.07467), in float32."""

    def __init__(self, config: ModelConfig, *, param_dtype: Any):
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones((config.hidden_size,), param_dtype))

    def __call__(self, x_BxTxM: jax.Array) -> jax.Array:
        x32_BxTxM = x_BxTxM.astype(jnp.float32)
        inverse_BxTx1 = jax.lax.rsqrt(jnp.mean(x32_BxTxM**2, axis=-1, keepdims=True) + self.epsilon)
        return (x32_BxTxM * inverse_BxTx1 * self.scale[...].astype(jnp.float32)).astype(x_BxTxM.dtype)


def rotary_angles(positions_BxT: jax.Array, config: ModelConfig) -> jax.Array:
    """Angles of the rotary embedding (arXiv 2104.09864), float32 [B, T, D / 2]."""
    exponents = jnp.arange(0, config.head_size, 2, dtype=jnp.float32) / config.head_size
    return positions_BxT[..., None].astype(jnp.float32) / config.rope_theta**exponents


def _rotate(x_BxTxHxD: jax.Array, *, angles_BxTxR: jax.Array) -> jax.Array:
    """Turns component i together with i + D / 2, the pairing of Hugging Face checkpoints."""
    cosine, sine = jnp.cos(angles_BxTxR)[:, :, None], jnp.sin(angles_BxTxR)[:, :, None]
    first, second = jnp.split(x_BxTxHxD.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x_BxTxHxD.dtype)
