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
from seallm_jax.generation.decoding import Decoding, DecodingState, Sampling
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
    rows = bucket(len(prompts), smallest=1)
    tokens_BxT = np.zeros((rows, bucket(max(lengths))), np.int32)
    lengths_B = np.zeros(rows, np.int32)  # a row without a prompt is done from the start
    for row, prompt in enumerate(prompts):
        tokens_BxT[row, : len(prompt)] = prompt
        lengths_B[row] = len(prompt)

    sampling = Sampling(
        jax.random.key(seed), np.float32(temperature), np.float32(top_p), np.float32(repetition_penalty)
    )
    new_BxN, counts_B = decode(
        *nnx.split(model),
        tokens_BxT,
        lengths_B,
        sampling,
        np.int32(maximum_new_tokens),
        slots=bucket(maximum_new_tokens),
        eos_ids=tuple(eos_ids),
        compute_dtype=jnp.dtype(compute_dtype),
        mesh=mesh,
    )
    new_BxN, counts_B = np.asarray(new_BxN), np.asarray(counts_B)
    return [new_BxN[row, : counts_B[row]].tolist() for row in range(len(prompts))]


@functools.partial(jax.jit, static_argnames=("graph", "slots", "eos_ids", "compute_dtype", "mesh"))
def decode(
    graph: Any,
    parameters: Any,
    tokens_BxT: jax.Array,
    lengths_B: jax.Array,
    sampling: Sampling,
    maximum_new_tokens: jax.Array,
    *,
    slots: int,
    eos_ids: tuple[int, ...],
    compute_dtype: Any,
    mesh: jax.sharding.Mesh | None,
) -> tuple[jax.Array, jax.Array]:
    """The program that `generate` runs: (new ids [B, N], how many of them count [B]), N being `slots`."""
    model = nnx.merge(graph, parameters)
    decoding = Decoding(model, sampling, eos_ids=eos_ids, compute_dtype=compute_dtype, mesh=mesh)

    def not_finished(state: DecodingState) -> jax.Array:
        return (state.step < maximum_new_tokens) & ~state.done.all()

    state = jax.lax.while_loop(not_finished, decoding.advance, decoding.start(tokens_BxT, lengths_B, slots=slots))
    return state.new, state.counts


def bucket(size: int, smallest: int = SMALLEST_BUCKET) -> int:
    """What a size is padded to: the next power of two."""
    return max(smallest, 1 << (size - 1).bit_length())
