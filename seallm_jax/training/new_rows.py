"""New rows first: for its first updates a stage trains only what the vocabulary extension added."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import OptimizerConfig
from seallm_jax.models.layout import path_name

MATRICES = ("embedding.kernel", "head.kernel")  # a row for each token: [V, M]


@dataclasses.dataclass(frozen=True)
class NewRows:
    """The rows that are trained alone, and for how long.

    Attributes:
      first_row: the base tokenizer's size; rows from here on are new.
      updates: updates that change nothing else. Skipped updates do not count, as in the learning-rate schedule.
    """

    first_row: int
    updates: int

    @classmethod
    def of(
        cls, config: OptimizerConfig, total_steps: int, first_row: int | None, trainable: Any, rows: int
    ) -> NewRows | None:
        """What the configuration asks for; None where nothing is held back.

        Args:
          config: `new_rows_first` is the share of `total_steps`.
          total_steps: length of the stage.
          first_row: first row that the vocabulary extension added; None when there was none.
          trainable: the trainable part of the parameters.
          rows: size of the vocabulary, new rows included.

        Raises:
          UsageError: there are no new rows, or none of their matrices is trained.
        """
        if not config.new_rows_first:
            return None
        setting = f"optimizer.new_rows_first is {config.new_rows_first}"
        if first_row is None or first_row >= rows:
            raise UsageError(f"{setting}, but no vocabulary extension added rows before this stage; set it to 0")
        paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(trainable)[0]]
        if not set(MATRICES) & set(paths):
            raise UsageError(
                f"{setting}, but optimizer.trainable = {', '.join(config.trainable)} leaves out "
                f"{' and '.join(MATRICES)}; add one or set it to 0"
            )
        return cls(first_row, round(config.new_rows_first * total_steps))

    def select(self, update: jax.Array, new: Any, old: Any) -> Any:
        """`new` where update number `update` (0 is the first) may change a value, else `old`, bit for bit."""

        def choose(path: tuple[Any, ...], new: jax.Array, old: jax.Array) -> jax.Array:
            open_now = update >= self.updates
            if path_name(path) in MATRICES:
                open_now |= jax.lax.broadcasted_iota(jnp.int32, (new.shape[0], 1), 0) >= self.first_row
            return jnp.where(open_now, new, old)

        return jax.tree_util.tree_map_with_path(choose, new, old)
