"""From the parameters of a decoder to those of an adapted one, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.adapters.attach import attach, merged_kernel
from seallm_jax.models.layout import abstract_decoder, path_name


def adapt_parameters(
    parameters: Any, config: ModelConfig, adapter: AdapterConfig, *, seed: int, shardings: Any = None
) -> nnx.State:
    """The parameters of a decoder with a fresh adapter, its kernels quantised if the adapter asks for it.

    Args:
      parameters: of the decoder without adapters. The result shares what stays as it is.
      config: the model's shape.
      adapter: what to add.
      seed: of the adapter's drawn matrices.
      shardings: of the result, in the structure of `abstract_decoder(config, adapter=adapter)`.

    Raises:
      SeallmError: adapter and model do not fit.
    """
    graph, _ = abstract_decoder(config)
    _, adapted = abstract_decoder(config, adapter=adapter)
    old = by_path(parameters)
    added = by_path(adapted).keys() - old.keys()

    def draw(parameters: Any, key: jax.Array) -> dict[str, jax.Array]:
        values = by_path(nnx.state(attach(nnx.merge(graph, parameters), adapter, key)))
        return {path: values[path] for path in added}

    places = None if shardings is None else {path: by_path(shardings)[path] for path in added}
    # runs once, and random generators take long to compile at the highest level
    options = {"xla_backend_optimization_level": 1}
    new = jax.jit(draw, out_shardings=places, compiler_options=options)(parameters, jax.random.key(seed))
    return _filled(adapted, old | new)


def merge_adapter(parameters: Any, config: ModelConfig, adapter: AdapterConfig, *, shardings: Any = None) -> nnx.State:
    """The parameters of a decoder without adapters that computes the same, float32.

    A quantised kernel is merged as the adapter saw it, dequantised.

    Args:
      parameters: of the adapted decoder. The result shares what stays as it is.
      config: the model's shape.
      adapter: what was added.
      shardings: of the result, in the structure of `abstract_decoder(config)`.
    """
    graph, adapted = abstract_decoder(config, adapter=adapter)
    _, plain = abstract_decoder(config)
    old = by_path(parameters)
    owners = {path.rpartition(".")[0].removesuffix(".kernel") for path in old.keys() - by_path(plain).keys()}
    changed = {f"{owner}.kernel" for owner in owners}

    def merge(parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
        decoder = nnx.merge(graph, _filled(adapted, parameters))
        return {path: merged_kernel(decoder, path) for path in changed}

    places = None if shardings is None else {path: by_path(shardings)[path] for path in changed}
    return _filled(plain, old | jax.jit(merge, out_shardings=places)(old))


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of parameters (shapes, shardings) by dotted path."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _filled(tree: Any, values: Mapping[str, Any]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: values[path_name(path)], tree)


def replace_parameters(parameters: Any, values: Mapping[str, np.ndarray]) -> Any:
    """`parameters` with the arrays in `values`, by dotted path, in the place and layout of the old ones.

    Raises:
      KeyError: a path that the parameters do not have.
      ValueError: an array of another shape.
    """
    left = dict(values)

    def value(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
        name = path_name(path)
        if name not in left:
            return old
        new = left.pop(name)
        if new.shape != old.shape:
            raise ValueError(f"{name} has shape {old.shape}, its new value {new.shape}")
        return jax.device_put(jnp.asarray(new, old.dtype), old.sharding)

    replaced = jax.tree_util.tree_map_with_path(value, parameters)
    if left:
        raise KeyError(f"no parameter {', '.join(left)}")
    return replaced
