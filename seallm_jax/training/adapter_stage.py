"""The two ends of a stage that trains an adapter: from its base to what it trains, and from its checkpoints back."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.adapters.parameters import adapt_parameters
from seallm_jax.models.layout import abstract_decoder, parameter_shardings
from seallm_jax.training import partition
from seallm_jax.training.checkpoint import restore_parameters


def adapted_parameters(
    base: Any,
    config: ModelConfig,
    adapter: AdapterConfig,
    mesh: jax.sharding.Mesh,
    *,
    seed: int,
    rules: ShardingRules = ShardingRules(),
) -> Any:
    """The parameters that an adapter stage begins with, laid out on `mesh`: a fresh adapter on `base`.

    They are the same bits every time, so that checkpoints need not hold the frozen ones.

    Args:
      base: parameters of the decoder without adapters, on `mesh`; what stays as it is, is shared.
      config: its shape.
      adapter: what is trained.
      mesh: where parameters lie.
      seed: the run's.
      rules: how they lie there.
    """
    _, shapes = abstract_decoder(config, adapter=adapter)
    return adapt_parameters(base, config, adapter, seed=seed, shardings=parameter_shardings(shapes, mesh, rules))


def restore_adapted(
    directory: pathlib.Path,
    base: Any,
    config: ModelConfig,
    adapter: AdapterConfig,
    mesh: jax.sharding.Mesh,
    *,
    trainable: tuple[str, ...],
    tokenizer_digest: str | None = None,
    rules: ShardingRules = ShardingRules(),
) -> Any:
    """The parameters of the adapted decoder that an adapter stage left behind: its newest checkpoint, on `base`.

    Args:
      directory: of the stage's checkpoints.
      base: parameters of the model that the stage began with, on `mesh`.
      config: its shape.
      adapter: what was trained.
      mesh: where parameters lie.
      trainable: patterns of the parameters that were trained.
      tokenizer_digest: the tokenizer expected, if it matters.
      rules: how parameters lie on `mesh`.

    Raises:
      SeallmError: missing or damaged, another model, or another tokenizer.
    """
    fresh = adapted_parameters(base, config, adapter, mesh, seed=0, rules=rules)
    stored, frozen = partition.split(fresh, (*trainable, *adapter.parameters))
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), stored)
    restored = restore_parameters(directory, abstract, config, tokenizer_digest=tokenizer_digest, adapter=adapter)
    return partition.merge(restored, frozen)
