"""Sliding windows as config.json has them: `sliding_window` and `layer_types`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families.config_reader import ConfigReader

_LOCAL = {"full_attention": False, "sliding_attention": True}


def read_windows(read: ConfigReader, local: Callable[[int], bool]) -> dict[str, Any]:
    """`sliding_window` and `local_layers` of a model's shape.

    Args:
      read: the config.json.
      local: whether a layer is local, for a config.json without `layer_types`.

    Raises:
      SeallmError: another type of layer, or local layers without a window.
    """
    types = read.get("layer_types")
    if types is None:
        layers = tuple(local(layer) for layer in range(read.whole("num_hidden_layers")))
    elif isinstance(types, list) and all(kind in _LOCAL for kind in types):
        layers = tuple(_LOCAL[kind] for kind in types)
    else:
        raise SeallmError(f"config.json: layer_types is {types!r}; supported are {', '.join(_LOCAL)}")
    return {"local_layers": layers, "sliding_window": read.whole("sliding_window") if any(layers) else 0}


def write_windows(config: ModelConfig) -> dict[str, Any]:
    """The keys that `read_windows` reads."""
    local = config.local_layers or (False,) * config.num_layers
    return {
        "layer_types": ["sliding_attention" if is_local else "full_attention" for is_local in local],
        "sliding_window": config.sliding_window or None,
    }
