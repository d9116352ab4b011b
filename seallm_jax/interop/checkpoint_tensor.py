"""The tensors of a checkpoint, each with the parameters that it holds."""

from __future__ import annotations

import dataclasses

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families.registry import family_named
from seallm_jax.models.families.weight import Weight


@dataclasses.dataclass(frozen=True)
class CheckpointTensor:
    """One tensor of a checkpoint.

    Attributes:
      name: its name there.
      shape: its shape there; the vocabulary is not padded.
      rows: rows of the weight table that it holds: one, or all parts of a fused tensor.
      layer: the layer it belongs to, or None.
    """

    name: str
    shape: tuple[int, ...]
    rows: tuple[Weight, ...]
    layer: int | None


def weight_groups(config: ModelConfig) -> list[tuple[Weight, ...]]:
    """The rows of the family's weight table, those that share a tensor together, in the order of the table."""
    groups: dict[str, list[Weight]] = {}
    for row in family_named(config.family).weights(config):
        groups.setdefault(row.name, []).append(row)
    return [tuple(rows) for rows in groups.values()]


def checkpoint_tensors(config: ModelConfig) -> list[CheckpointTensor]:
    """All tensors that a checkpoint of this model has: embedding, layer by layer, head, as a shard should hold them."""
    groups = weight_groups(config)
    stacked = [index for index, rows in enumerate(groups) if rows[0].stacked]
    before, after = (groups[: stacked[0]], groups[stacked[-1] + 1 :]) if stacked else (groups, [])
    between = groups[len(before) : len(groups) - len(after)]
    layers = [rows for rows in between if rows[0].stacked]
    alone = [rows for rows in between if not rows[0].stacked]
    ordered: list[tuple[tuple[Weight, ...], int | None]] = [(rows, None) for rows in (*before, *alone)]
    ordered += [(rows, layer) for layer in range(config.num_layers) for rows in layers]
    ordered += [(rows, None) for rows in after]
    return [
        CheckpointTensor(rows[0].names(config)[layer or 0], rows[0].checkpoint_shape(config), rows, layer)
        for rows, layer in ordered
    ]


def tied_names(config: ModelConfig) -> set[str]:
    """Names of the head that is tied to the embedding: some checkpoints carry a copy of it."""
    if not config.tie_embeddings:
        return set()
    untied = dataclasses.replace(config, tie_embeddings=False)
    return {tensor.name for tensor in checkpoint_tensors(untied)} - {
        tensor.name for tensor in checkpoint_tensors(config)
    }
