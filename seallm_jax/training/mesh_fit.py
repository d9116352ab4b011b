"""Whether the sizes of a model and of its rows can be split over a mesh, and which ones could."""

from __future__ import annotations

import logging

from jax.sharding import Mesh

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import ModelConfig, TrainConfig
from seallm_jax.core.sharding import MeshAxes, ShardingRules, extent

logger = logging.getLogger(__name__)


def check_fit(
    model: ModelConfig, train: TrainConfig, sequence_length: int, mesh: Mesh, rules: ShardingRules = ShardingRules()
) -> None:
    """Raises UsageError, naming the nearest sizes that fit, where a step could not be split as the mesh asks.

    Key/value heads may be fewer than the devices that share the query heads: each device then has those that its query
    heads read. A hidden size that the devices cannot share is allowed and told: parameters are copied to all of them.
    """
    _check_multiple("batch_rows / accumulation", train.micro_batch_rows, mesh, rules.batch)
    _check_multiple("packing.sequence_length", sequence_length, mesh, rules.sequence)
    sizes = {
        "num_heads": (model.num_heads, rules.heads),
        "num_key_value_heads": (model.num_key_value_heads, rules.key_value_heads),
        "intermediate_size": (model.intermediate_size, rules.intermediate),
    }
    for key, (size, axes) in sizes.items():
        shards = extent(mesh, axes)
        if not _splits(key, size, shards):
            legal = [n for n in range(1, model.num_heads + 1) if all(_splits(k, s, n) for k, (s, _) in sizes.items())]
            raise UsageError(
                f"config.mesh has {shards} devices along {_named(axes)}, over which the model's {key} = {size} does "
                f"not split; use {_nearest(legal, shards)}"
            )
    _check_multiple("model.padded_vocabulary_size", model.padded_vocabulary_size, mesh, rules.vocabulary)
    shards = extent(mesh, rules.hidden)
    if model.hidden_size % shards:
        legal = [n for n in range(1, model.hidden_size + 1) if model.hidden_size % n == 0]
        logger.warning(
            "config.mesh has %d devices along %s, over which the model's hidden_size = %d does not split: each holds "
            "all parameters and their optimizer state; %s would split them",
            *(shards, _named(rules.hidden), model.hidden_size, _nearest(legal, shards)),
        )


def _check_multiple(key: str, size: int, mesh: Mesh, axes: MeshAxes) -> None:
    shards = extent(mesh, axes)
    if size % shards:
        below = size - size % shards
        near = " or ".join(str(multiple) for multiple in (below, below + shards) if multiple)
        raise UsageError(
            f"{key} is {size}, which does not split over the {shards} devices of the mesh axes {_named(axes)}; "
            f"make it a multiple of {shards}, such as {near}, or change config.mesh"
        )


def _splits(key: str, size: int, shards: int) -> bool:
    return size % shards == 0 or (key == "num_key_value_heads" and shards % size == 0)


def _nearest(legal: list[int], asked: int) -> str:
    """The largest legal number below what was asked for, and the smallest above."""
    below, above = [n for n in legal if n < asked], [n for n in legal if n > asked]
    return " or ".join(str(n) for n in (*below[-1:], *above[:1]))


def _named(axes: MeshAxes) -> str:
    return axes if isinstance(axes, str) else ", ".join(axes or ())
