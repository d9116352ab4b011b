"""Log-probabilities of token sequences, many at a time: the one forward pass of all evaluations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import KernelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.evaluation.rows import ScoredRows, ScoredText
from seallm_jax.models.decoder import Decoder


class TextEncoder(Protocol):
    """What an evaluation needs of a tokenizer; `seallm_jax.tokenization.tokenizer.Tokenizer` is one."""

    @property
    def begin_id(self) -> int:
        """Id before the first token of a document: BOS, or what ends a document where there is no BOS."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Sum of log-probabilities in nats and the number of tokens in it."""

    log_probability: float
    tokens: int


class Scorer:
    """Scores token sequences under one model.

    Sequences are packed into rows of `sequence_length` positions and evaluated `batch_rows` rows at a time, so that one
    compiled function serves everything; it is shared by scorers of models of the same shape. A sequence longer than a
    row is cut into windows without overlap: each of its tokens is scored once, given those before it in its window.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        sequence_length: int,
        batch_rows: int = 16,
        compute_dtype: Any = jnp.float32,
        mesh: jax.sharding.Mesh | None = None,
        rules: ShardingRules = ShardingRules(),
        kernels: KernelConfig = KernelConfig(),
    ):
        """
        Args:
          model: the decoder; its parameters stay where they are.
          sequence_length: positions of a row; not more than the model was made for.
          batch_rows: rows per forward pass, over all devices.
          compute_dtype: dtype of the forward pass. float32 by default: bfloat16 rounds away small differences.
          mesh: where given, rows are split over it by `rules`; the result is the same.
          kernels: implementations of attention and cross-entropy.

        Raises:
          SeallmError: a sequence length or a number of rows that cannot be.
        """
        if not 2 <= sequence_length <= model.config.max_positions:
            raise SeallmError(
                f"evaluation sequence length is {sequence_length}; it must lie between 2 and the model's "
                f"max_positions = {model.config.max_positions}"
            )
        if batch_rows < 1:
            raise SeallmError(f"evaluation.batch_rows is {batch_rows}; it must be positive")
        self.sequence_length = sequence_length
        self.vocabulary_size = model.config.vocabulary_size
        self._rows = batch_rows
        self._graph, self._state = nnx.split(model)
        self._mesh, self._rules = mesh, rules
        options = {"compute_dtype": jnp.dtype(compute_dtype), "mesh": mesh, "rules": rules, "kernels": kernels}
        self._options = tuple(options.items())

    def score(
        self, texts: Sequence[ScoredText], *, progress: Progress | None = None, name: str = "scoring"
    ) -> list[Score]:
        """Score of each text, in order. What is packed beside a text does not change its score, up to rounding.

        Raises:
          SeallmError: an id that the model does not have.
        """
        largest = max((int(text.ids.max()) for text in texts if text.ids.size), default=0)
        if largest >= self.vocabulary_size:
            raise SeallmError(
                f"token id {largest} is outside the model's vocabulary of {self.vocabulary_size}; "
                "evaluate with the tokenizer that belongs to the model"
            )
        sums = np.zeros(len(texts))
        counts = np.zeros(len(texts), np.int64)
        packed = ScoredRows(texts, self.sequence_length)
        with (progress or Progress.silent()).task(name, total=len(packed)) as advance:
            for start in range(0, len(packed), self._rows):
                batch, owners_BxT = packed.batch(start, self._rows)
                log_probability_BxT = self._forward(batch).astype(np.float64)
                scored_BxT = batch.loss_weights > 0
                owners = owners_BxT[scored_BxT]
                np.add.at(sums, owners, log_probability_BxT[scored_BxT])
                np.add.at(counts, owners, 1)
                advance(min(self._rows, len(packed) - start))
        return [Score(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]

    def _forward(self, batch: Batch) -> np.ndarray:
        if self._mesh is not None:
            batch = jax.tree.map(self._place, batch)
        return np.asarray(_log_probabilities(self._graph, self._options, self._state, batch))

    def _place(self, array: np.ndarray) -> jax.Array:
        """A global array from rows that every process holds."""
        sharding = self._rules.sharding(self._mesh, "batch", "sequence", shape=array.shape)  # type: ignore[arg-type]
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_probabilities(graph: Any, options: tuple[tuple[str, Any], ...], state: Any, batch: Batch) -> jax.Array:
    """float32 [B, T], the log-probability of each target."""
    forward = dict(options)
    log_probability_BxT = nnx.merge(graph, state).log_probability(batch, **forward).log_probability
    if forward["mesh"] is None:
        return log_probability_BxT
    # replicated, so that every process can read all of it
    return jax.lax.with_sharding_constraint(log_probability_BxT, NamedSharding(forward["mesh"], PartitionSpec()))
