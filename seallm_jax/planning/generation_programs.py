"""The programs of batched decoding, lowered for devices that need not exist."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seallm_jax.core.schema import GenerationConfig, ModelConfig
from seallm_jax.generation.decoding import Decoding, DecodingState, Sampling
from seallm_jax.generation.sampler import bucket, decode
from seallm_jax.models.layout import abstract_decoder, parameter_shardings


class GenerationPrograms:
    """What `generate` runs as a whole, and its two parts, whose times can be told: prompts, and one more token.

    Parameters are float32 and lie as in training, which is how a run loads its models.
    """

    def __init__(
        self, model: ModelConfig, generation: GenerationConfig, mesh: jax.sharding.Mesh, *, rows: int, positions: int
    ):
        """
        Args:
          model: shape of the model, vocabulary sizes filled in.
          generation: dtype and new tokens.
          mesh: the devices.
          rows: prompts, over all devices.
          positions: tokens of the longest prompt.
        """
        self.graph, abstract = abstract_decoder(model)
        self.parameters = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            parameter_shardings(abstract, mesh),
        )
        rows, positions = bucket(rows, smallest=1), bucket(positions)
        self._slots = bucket(generation.maximum_new_tokens)
        self._dtype, self._mesh = jnp.dtype(generation.compute_dtype), mesh
        self._prompts = jax.ShapeDtypeStruct((rows, positions), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        self._sampling = Sampling(jax.eval_shape(lambda: jax.random.key(0)), scalar, scalar, scalar)

    def whole(self) -> Any:
        """The prompts and all new tokens, lowered."""
        limit = jax.ShapeDtypeStruct((), jnp.int32)
        static: dict[str, Any] = {
            "slots": self._slots,
            "eos_ids": (0,),
            "compute_dtype": self._dtype,
            "mesh": self._mesh,
        }
        return decode.lower(self.graph, self.parameters, *self._prompts, self._sampling, limit, **static)

    def start(self) -> Any:
        """The prompts, lowered: (parameters, tokens, lengths, sampling) -> DecodingState."""
        return jax.jit(self._start).lower(self.parameters, *self._prompts, self._sampling)

    def state(self, shardings: Any) -> DecodingState:
        """What `advance` is given, as shapes.

        Args:
          shardings: of the leaves, as the compiled `start` leaves them.
        """
        abstract = jax.eval_shape(self._start, self.parameters, *self._prompts, self._sampling)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
        )

    def advance(self, state: DecodingState) -> Any:
        """One more token for each row, lowered: (parameters, state, sampling) -> state; the state given is donated."""

        def advance(parameters: Any, state: DecodingState, sampling: Sampling) -> DecodingState:
            return self._decoding(parameters, sampling).advance(state)

        return jax.jit(advance, donate_argnums=1).lower(self.parameters, state, self._sampling)

    def _start(self, parameters: Any, tokens: jax.Array, lengths: jax.Array, sampling: Sampling) -> DecodingState:
        return self._decoding(parameters, sampling).start(tokens, lengths, slots=self._slots)

    def _decoding(self, parameters: Any, sampling: Sampling) -> Decoding:
        model = nnx.merge(self.graph, parameters)
        return Decoding(model, sampling, eos_ids=(0,), compute_dtype=self._dtype, mesh=self._mesh)
