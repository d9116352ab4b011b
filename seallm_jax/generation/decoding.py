"""What decoding is made of: one pass over all prompts, then one token a step with a cache.

Shape letters: B rows, T prompt positions, N new tokens, M hidden size, V padded vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.generation.filters import keep_nucleus, penalize_repetition
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.decoder import Decoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; all may be traced, so that one program serves every setting.

    Attributes:
      key: of `jax.random`.
      temperature: float32; 0 takes the most likely token.
      top_p: float32, nucleus mass.
      repetition_penalty: float32; 1 is none.
    """

    key: Any
    temperature: Any
    top_p: Any
    repetition_penalty: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingState:
    """What one step hands to the next.

    Attributes:
      step: int32 scalar, tokens chosen for each row.
      lengths: int32 [B], tokens of each prompt.
      new: int32 [B, N], the tokens chosen.
      counts: int32 [B], how many of them count.
      done: bool [B], rows that have ended.
      seen: bool [B, V], ids that occurred in the prompt or since.
      token: int32 [B], the last token chosen.
      cache: keys and values of all but that token.
    """

    step: jax.Array
    lengths: jax.Array
    new: jax.Array
    counts: jax.Array
    done: jax.Array
    seen: jax.Array
    token: jax.Array
    cache: KeyValueCache


class Decoding:
    """Batched decoding with a model: `start`, then `advance` while rows go on."""

    def __init__(
        self,
        model: Decoder,
        sampling: Sampling,
        *,
        eos_ids: Sequence[int],
        compute_dtype: Any,
        mesh: jax.sharding.Mesh | None,
    ):
        """
        Args:
          model: the decoder.
          sampling: how tokens are chosen.
          eos_ids: ids that end a row.
          compute_dtype: dtype of activations and of the cache.
          mesh: lay activations out on this mesh.
        """
        self._model = model
        self._sampling = sampling
        self._eos = jnp.array(tuple(eos_ids), jnp.int32)
        self._dtype = compute_dtype
        self._forward = functools.partial(model, compute_dtype=compute_dtype, mesh=mesh)

    def start(self, tokens_BxT: jax.Array, lengths_B: jax.Array, *, slots: int) -> DecodingState:
        """Reads the prompts and chooses the first token of each row.

        Args:
          tokens_BxT: int32 prompts, padded on the right.
          lengths_B: int32, tokens of each; a row of length 0 is done from the start.
          slots: new tokens that there is room for.
        """
        B, T = tokens_BxT.shape
        rows_B, index_1xT = jnp.arange(B), jnp.arange(T)[None]
        inside_BxT = index_1xT < lengths_B[:, None]
        config = self._model.config
        cache = KeyValueCache.empty(config, B, T + slots, self._dtype)
        hidden_BxTxM, cache = self._forward(
            tokens_BxT, index_1xT.repeat(B, axis=0), inside_BxT.astype(jnp.int32), cache=cache
        )
        seen_BxV = jnp.zeros((B, config.padded_vocabulary_size), bool).at[rows_B[:, None], tokens_BxT].max(inside_BxT)
        token_B = self._choose(hidden_BxTxM[rows_B, lengths_B - 1], seen_BxV, jnp.int32(0))
        nothing = DecodingState(
            step=jnp.int32(0),
            lengths=lengths_B,
            new=jnp.zeros((B, slots), jnp.int32),
            counts=jnp.zeros(B, jnp.int32),
            done=lengths_B == 0,
            seen=seen_BxV,
            token=token_B,
            cache=cache,
        )
        return self._record(nothing, token_B, cache)

    def advance(self, state: DecodingState) -> DecodingState:
        """Chooses the next token of each row."""
        position_Bx1 = (state.lengths + state.step - 1)[:, None]
        hidden_Bx1xM, cache = self._forward(
            state.token[:, None], position_Bx1, jnp.ones_like(position_Bx1), cache=state.cache
        )
        return self._record(state, self._choose(hidden_Bx1xM[:, 0], state.seen, state.step), cache)

    def _choose(self, hidden_BxM: jax.Array, seen_BxV: jax.Array, step: jax.Array) -> jax.Array:
        sampling = self._sampling
        logits_BxV = penalize_repetition(self._model.logits(hidden_BxM), seen_BxV, sampling.repetition_penalty)

        def sample():
            kept_BxV = keep_nucleus(logits_BxV / sampling.temperature, sampling.top_p)
            return jax.random.categorical(jax.random.fold_in(sampling.key, step), kept_BxV).astype(jnp.int32)

        return jax.lax.cond(sampling.temperature == 0, lambda: logits_BxV.argmax(axis=-1).astype(jnp.int32), sample)

    def _record(self, state: DecodingState, token_B: jax.Array, cache: KeyValueCache) -> DecodingState:
        done_B = state.done | jnp.isin(token_B, self._eos)
        return dataclasses.replace(
            state,
            step=state.step + 1,
            new=state.new.at[:, state.step].set(token_B),
            counts=jnp.where(done_B, state.counts, state.step + 1),
            done=done_B,
            seen=state.seen.at[jnp.arange(len(token_B)), token_B].set(True),
            token=token_B,
            cache=cache,
        )
