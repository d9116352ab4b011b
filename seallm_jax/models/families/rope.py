"""Rotary positions as config.json has them: `rope_theta` and `rope_scaling`, or `rope_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import RopeConfig
from seallm_jax.models.families.config_reader import ConfigReader

# Attributes of RopeConfig that a type uses.
USED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "original_positions", "low_frequency_factor", "high_frequency_factor"),
    "yarn": (
        "factor",
        "original_positions",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
_KEYS = {
    "original_positions": "original_max_position_embeddings",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
}
_OPTIONAL = ("original_positions", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim")
# A parameter that another type uses is ignored, as in transformers; one that nobody knows is an error.
_KNOWN = {"rope_theta", "rope_type", "type", "finetuned", "partial_rotary_factor"}
_KNOWN |= {_KEYS.get(attribute, attribute) for attributes in USED.values() for attribute in attributes}


def read_rope(parameters: Mapping[str, Any], *, section: str, theta: float, max_positions: int) -> RopeConfig:
    """Rotary positions from a dictionary of config.json.

    Args:
      parameters: `rope_parameters` or `rope_scaling`; empty for the default type.
      section: where the dictionary lies, for messages.
      theta: base, for a dictionary without one.
      max_positions: the model's.

    Raises:
      SeallmError: an unknown type, such as longrope, or an unknown, missing or impossible parameter.
    """
    where = f"config.json: {section}"
    defaults = {"rope_type": parameters.get("type", "default"), "rope_theta": theta, "truncate": True}
    read = ConfigReader(parameters, defaults, where=where)
    kind = read.choice("rope_type", {kind: kind for kind in USED})
    for key, value in parameters.items():
        if key not in _KNOWN:
            raise SeallmError(f"{where}: {key} is {value!r}; this parameter is not supported")
    read.refuse_unless("partial_rotary_factor", 1, None)
    if parameters.get("attention_factor") == 0:
        raise SeallmError(f"{where}: attention_factor is 0; it must be positive, or absent")
    found: dict[str, Any] = {}
    for attribute in USED[kind]:
        key = _KEYS.get(attribute, attribute)
        if attribute == "truncate":
            found[attribute] = read.flag(key)
        elif attribute == "factor" and kind == "yarn" and read.get(key) is None:
            found[attribute] = max_positions / (read.get(_KEYS["original_positions"]) or max_positions)
        elif read.get(key) or attribute not in _OPTIONAL:  # null and 0 stand for the default
            found[attribute] = read.whole(key) if attribute == "original_positions" else read.number(key)
    try:
        return RopeConfig(type=kind, theta=read.number("rope_theta"), **found)
    except ValueError as error:
        raise SeallmError(f"{where}: {error}") from None


def write_rope(rope: RopeConfig, *, max_positions: int) -> dict[str, Any]:
    """The dictionary for `rope_parameters`; without `rope_theta` it is one for `rope_scaling`."""
    written: dict[str, Any] = {"rope_type": rope.type, "rope_theta": rope.theta}
    for attribute in USED[rope.type]:
        value = getattr(rope, attribute)
        if attribute == "original_positions":
            value = value or max_positions
        if value or attribute not in _OPTIONAL:
            written[_KEYS.get(attribute, attribute)] = value
    return written
