"""Where parameters lie on a mesh: rules by path, outside the model.

A parameter's path is its dotted name in the model, such as `layers.attention.query.kernel`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.adapters.attach import attach
from seallm_jax.models.adapters.layout import adapter_axes
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.projection import merge_positions, multiply_in

# Every parameter that some configuration has. Vectors over the hidden dimension are small, and lie whole as norms do.
LOGICAL_AXES: dict[str, tuple[str, ...]] = {
    "embedding.kernel": ("vocabulary", "hidden"),
    "embedding_norm.scale": ("norm",),
    "embedding_norm.bias": ("norm",),
    "head.kernel": ("vocabulary", "hidden"),
    "final_norm.scale": ("norm",),
    "final_norm.bias": ("norm",),
    "layers.attention_norm.scale": ("layers", "norm"),
    "layers.attention_norm.bias": ("layers", "norm"),
    "layers.attention.query.kernel": ("layers", "hidden", "heads", "head_size"),
    "layers.attention.query.bias": ("layers", "heads", "head_size"),
    "layers.attention.query_norm.scale": ("layers", "heads", "head_size"),
    "layers.attention.key.kernel": ("layers", "hidden", "key_value_heads", "head_size"),
    "layers.attention.key.bias": ("layers", "key_value_heads", "head_size"),
    "layers.attention.key_norm.scale": ("layers", "key_value_heads", "head_size"),
    "layers.attention.value.kernel": ("layers", "hidden", "key_value_heads", "head_size"),
    "layers.attention.value.bias": ("layers", "key_value_heads", "head_size"),
    "layers.attention.output.kernel": ("layers", "heads", "head_size", "hidden"),
    "layers.attention.output.bias": ("layers", "norm"),
    "layers.attention_output_norm.scale": ("layers", "norm"),
    "layers.attention_output_norm.bias": ("layers", "norm"),
    "layers.mlp_norm.scale": ("layers", "norm"),
    "layers.mlp_norm.bias": ("layers", "norm"),
    "layers.mlp.gate.kernel": ("layers", "hidden", "intermediate"),
    "layers.mlp.gate.bias": ("layers", "intermediate"),
    "layers.mlp.up.kernel": ("layers", "hidden", "intermediate"),
    "layers.mlp.up.bias": ("layers", "intermediate"),
    "layers.mlp.down.kernel": ("layers", "intermediate", "hidden"),
    "layers.mlp.down.bias": ("layers", "norm"),
    "layers.mlp_output_norm.scale": ("layers", "norm"),
    "layers.mlp_output_norm.bias": ("layers", "norm"),
}


def path_name(path: tuple[Any, ...]) -> str:
    """Dotted name of a `jax.tree_util` key path to an array, with or without its `nnx.Variable` around it."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return ".".join(names[:-1] if names[-1] == "value" else names)


def logical_axes(path: str, rank: int | None = None) -> tuple[str | None, ...]:
    """Logical axes of the parameter at a dotted path. A prefix is allowed, as in an optimizer's `mu.` + path.

    Args:
      path: dotted name.
      rank: number of dimensions, where it is known. Norms of queries and keys have one for the heads only if they
        normalise across them.

    Raises:
      KeyError: no parameter of the decoder has this path.
    """
    for known, axes in LOGICAL_AXES.items():
        if path == known or path.endswith("." + known):
            per_head = rank == 2 and known.endswith(("query_norm.scale", "key_norm.scale"))
            return (axes[0], axes[-1]) if per_head else axes
    if (adapted := adapter_axes(path, LOGICAL_AXES)) is not None:
        return adapted
    raise KeyError(f"no logical axes for parameter {path!r}")


def parameter_shardings(parameters: Any, mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Any:
    """NamedSharding of each leaf of a tree of parameters (arrays or shapes), by path.

    A dimension that its mesh axes do not divide is replicated.
    """

    def sharding(path, leaf) -> NamedSharding:
        return rules.sharding(mesh, *logical_axes(path_name(path), len(leaf.shape)), shape=leaf.shape)

    return jax.tree_util.tree_map_with_path(sharding, parameters)


def abstract_decoder(
    config: ModelConfig,
    *,
    param_dtype: Any = jnp.float32,
    adapter: AdapterConfig | None = None,
    matmul_dtype: str = "none",
    merged: bool = False,
) -> tuple[Any, nnx.State]:
    """(graph definition, parameters as jax.ShapeDtypeStruct): the model without memory, with an adapter if given.

    The matrix products of its layers are in `matmul_dtype`, see `core.train_config.TrainConfig`, and `merged`, see
    `models.projection.merge_positions`.
    """

    def make() -> Decoder:
        decoder = Decoder(config, rngs=nnx.Rngs(0), param_dtype=param_dtype)
        if adapter is not None:
            decoder = attach(decoder, adapter, jax.random.key(0))
        multiply_in(decoder.layers, matmul_dtype)
        if merged:
            merge_positions(decoder.layers)
        return decoder

    return nnx.split(nnx.eval_shape(make))


def initialize(
    config: ModelConfig,
    *,
    seed: int,
    mesh: Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    param_dtype: Any = jnp.float32,
) -> Decoder:
    """A new decoder, each device drawing its own shards. The values depend on `config` and `seed` only."""
    graph, draw = _initializer(config, mesh, rules, jnp.dtype(param_dtype))
    return nnx.merge(graph, draw(jax.random.key(seed)))


@functools.cache
def _initializer(config: ModelConfig, mesh: Mesh | None, rules: ShardingRules, param_dtype: jnp.dtype):
    """(graph definition, compiled function from a key to parameters)."""
    graph, abstract = abstract_decoder(config, param_dtype=param_dtype)

    def draw(key: jax.Array) -> nnx.State:
        return nnx.state(Decoder(config, rngs=nnx.Rngs(params=key), param_dtype=param_dtype))

    return graph, jax.jit(
        draw,
        out_shardings=None if mesh is None else parameter_shardings(abstract, mesh, rules),
        # Random generators run once, and take a CPU three times as long to compile at the highest level.
        compiler_options={"xla_backend_optimization_level": 1},
    )
