"""Batched decoding: one prefill of all prompts, then one token a step with a cache, in one compiled function.

Shape letters: B rows, T prompt positions, N new tokens, M hidden size, V padded vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.generation.filters import keep_nucleus, penalize_repetition
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.decoder import Decoder

SMALLEST_BUCKET = 16  # prompts and new tokens are padded to powers of two from here on, so that few shapes compile


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    maximum_new_tokens: int,
    eos_ids: Sequence[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    compute_dtype: Any = jnp.bfloat16,
    mesh: jax.sharding.Mesh | None = None,
) -> list[list[int]]:
    """Continues each prompt until it produces an end token or `maximum_new_tokens`.

    Args:
      model: the decoder.
      prompts: token ids, of any lengths; begin-of-text tokens are the caller's business.
      maximum_new_tokens: longest continuation.
      eos_ids: ids that end a row.
      temperature: 0 takes the most likely token; otherwise logits are divided by it.
      top_p: nucleus mass; 1 keeps all tokens.
      repetition_penalty: divides (or multiplies) the logits of tokens in the prompt or continuation; 1 is none.
      seed: the result is a function of it, of the other arguments and of the order of the prompts.
      compute_dtype: dtype of activations and of the cache.
      mesh: lay activations out on this mesh.

    Returns:
      The new ids of each prompt, without the end token. Padded vocabulary ids never occur.

    Raises:
      SeallmError: no tokens asked for, an empty prompt, or one that leaves too few of the model's positions.
    """
    if maximum_new_tokens < 1:
        raise SeallmError(f"maximum_new_tokens is {maximum_new_tokens}; ask for at least 1")
    if not prompts:
        return []
    lengths = [len(prompt) for prompt in prompts]
    for number, length in enumerate(lengths):
        if length == 0:
            raise SeallmError(f"prompt {number} is empty; begin it with the begin-of-text token")
        if length + maximum_new_tokens > model.config.longest_text:
            raise SeallmError(
                f"prompt {number} has {length} tokens and {maximum_new_tokens} more are asked for, "
                f"but the model has {model.config.longest_text} positions"
            )
    rows = _bucket(len(prompts), smallest=1)
    tokens_BxT = np.zeros((rows, _bucket(max(lengths))), np.int32)
    lengths_B = np.zeros(rows, np.int32)  # a row without a prompt is done from the start
    for row, prompt in enumerate(prompts):
        tokens_BxT[row, : len(prompt)] = prompt
        lengths_B[row] = len(prompt)

    new_BxN, counts_B = _decode(
        *nnx.split(model),
        tokens_BxT,
        lengths_B,
        jax.random.key(seed),
        np.int32(maximum_new_tokens),
        np.float32(temperature),
        np.float32(top_p),
        np.float32(repetition_penalty),
        slots=_bucket(maximum_new_tokens),
        eos_ids=tuple(eos_ids),
        compute_dtype=jnp.dtype(compute_dtype),
        mesh=mesh,
    )
    new_BxN, counts_B = np.asarray(new_BxN), np.asarray(counts_B)
    return [new_BxN[row, : counts_B[row]].tolist() for row in range(len(prompts))]


@functools.partial(jax.jit, static_argnames=("graph", "slots", "eos_ids", "compute_dtype", "mesh"))
def _decode(
    graph,
    parameters,
    tokens_BxT,
    lengths_B,
    key,
    maximum_new_tokens,
    temperature,
    top_p,
    repetition_penalty,
    *,
    slots,
    eos_ids,
    compute_dtype,
    mesh,
):
    """Returns new ids [B, N] and how many of them count [B]."""
    model: Decoder = nnx.merge(graph, parameters)
    B, T = tokens_BxT.shape
    rows_B, index_1xT = jnp.arange(B), jnp.arange(T)[None]
    inside_BxT = index_1xT < lengths_B[:, None]
    eos = jnp.array(eos_ids, jnp.int32)
    forward = functools.partial(model, compute_dtype=compute_dtype, mesh=mesh)

    def choose(hidden_BxM, seen_BxV, step):
        logits_BxV = penalize_repetition(model.logits(hidden_BxM), seen_BxV, repetition_penalty)

        def sample():
            kept_BxV = keep_nucleus(logits_BxV / temperature, top_p)
            return jax.random.categorical(jax.random.fold_in(key, step), kept_BxV).astype(jnp.int32)

        return jax.lax.cond(temperature == 0, lambda: logits_BxV.argmax(axis=-1).astype(jnp.int32), sample)

    def record(step, token_B, new_BxN, counts_B, done_B, seen_BxV):
        done_B |= jnp.isin(token_B, eos)
        counts_B = jnp.where(done_B, counts_B, step + 1)
        return new_BxN.at[:, step].set(token_B), counts_B, done_B, seen_BxV.at[rows_B, token_B].set(True)

    def not_finished(state):
        step, (_, _, done_B, _), *_ = state
        return (step < maximum_new_tokens) & ~done_B.all()

    def next_token(state):
        step, recorded, token_B, cache = state
        position_Bx1 = (lengths_B + step - 1)[:, None]
        segment_Bx1 = jnp.ones((B, 1), jnp.int32)
        hidden_Bx1xM, cache = forward(token_B[:, None], position_Bx1, segment_Bx1, cache=cache)
        token_B = choose(hidden_Bx1xM[:, 0], recorded[-1], step)
        return step + 1, record(step, token_B, *recorded), token_B, cache

    cache = KeyValueCache.empty(model.config, B, T + slots, compute_dtype)
    hidden_BxTxM, cache = forward(tokens_BxT, index_1xT.repeat(B, axis=0), inside_BxT.astype(jnp.int32), cache=cache)
    seen_BxV = jnp.zeros((B, model.config.padded_vocabulary_size), bool).at[rows_B[:, None], tokens_BxT].max(inside_BxT)
    token_B = choose(hidden_BxTxM[rows_B, lengths_B - 1], seen_BxV, 0)
    nothing = jnp.zeros((B, slots), jnp.int32), jnp.zeros(B, jnp.int32), lengths_B == 0, seen_BxV
    state = jnp.int32(1), record(0, token_B, *nothing), token_B, cache
    _, (new_BxN, counts_B, _, _), _, _ = jax.lax.while_loop(not_finished, next_token, state)
    return new_BxN, counts_B


def _bucket(size: int, smallest: int = SMALLEST_BUCKET) -> int:
    """The next power of two."""
    return max(smallest, 1 << (size - 1).bit_length())
