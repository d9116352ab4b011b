"""Which parameters a stage trains: patterns over dotted paths, and the two parts of the tree that they make.

A pattern is one of `fnmatch`, such as `layers.mlp.*`. As the parameters of all layers are one array, it may say which
layers it is for as Python's slices do: `layers.8.mlp.*`, `layers.8:16.*`, `layers.-2:.*`. What of an array is not
trained is then held by `training.subset`; here such an array counts as trained.

A part has the structure of the whole tree, with None (no leaf) where the parameter belongs to the other part, so that
`jax.grad`, optax and checkpoints see only its own parameters.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from seallm_jax.core.errors import UsageError
from seallm_jax.models.layout import path_name

ALL = ("*",)
_OF_LAYERS = re.compile(r"layers\.(?:(?P<one>-?\d+)|(?P<start>-?\d*):(?P<stop>-?\d*))\.(?P<rest>.+)")


def split(parameters: Any, patterns: Iterable[str] = ALL) -> tuple[Any, Any]:
    """(trainable, frozen) parts of a tree of parameters, of its shapes, or of anything else in its structure."""
    patterns = tuple(patterns)

    def part(wanted: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if matches(path_name(path), patterns) == wanted else None, parameters
        )

    return part(True), part(False)


def merge(first: Any, second: Any) -> Any:
    """The whole tree from the two parts that `split` made."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted path matches one of the patterns, be it for some layers only."""
    return any(fnmatch.fnmatchcase(path, _without_layers(pattern)) for pattern in patterns)


def layers_of(pattern: str, layers: int) -> slice | None:
    """The layers out of `layers` that a pattern names, or None where it names none: it is for all.

    Raises:
      ValueError: layers that are not there.
    """
    found = _OF_LAYERS.fullmatch(pattern)
    if found is None:
        return None
    start, stop = (int(text) if text else None for text in (found["start"], found["stop"]))
    if found["one"]:
        start = int(found["one"])
        stop = start + 1 or None
    named = range(layers)[start:stop]
    if not named or any(n is not None and not -layers <= n <= layers for n in (start, stop)):
        raise ValueError(f"there are layers 0 to {layers - 1}")
    return slice(named.start, named.stop)


def group_of(path: str) -> str:
    """What telemetry counts a parameter as: embedding, head, attention, mlp, norm or adapter."""
    if ".lora_" in path or path.endswith("new_rows"):
        return "adapter"
    parts = path.split(".")
    return "norm" if "norm" in path else parts[1] if parts[0] == "layers" else parts[0]


def multiplier(path: str, multipliers: Mapping[str, float], shape: tuple[int, ...] = ()) -> float | np.ndarray:
    """The learning-rate multiplier of a path: that of its longest matching pattern, the first among equals, else 1.

    Where patterns name layers, it is an array that broadcasts to `shape`, of a parameter of all layers.
    """
    factor: float | np.ndarray = 1.0
    for pattern in sorted(reversed(list(multipliers)), key=len):  # what comes later overwrites
        if matches(path, [pattern]):
            layers = layers_of(pattern, shape[0]) if shape else None
            if layers is None:
                factor = multipliers[pattern]
            else:
                factor = np.broadcast_to(factor, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32)
                factor[layers] = multipliers[pattern]
    return factor


def check_patterns(parameters: Any, patterns: Iterable[str], key: str) -> None:
    """Raises UsageError naming `key` and what there is if a pattern matches no parameter, or names no layer."""
    shapes = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]}
    for pattern in patterns:
        found = fnmatch.filter(shapes, _without_layers(pattern))
        if not found:
            raise UsageError(f"{key}: {pattern!r} matches no parameter; there are {', '.join(shapes)}")
        try:
            for path in found:
                layers_of(pattern, shapes[path][0])
        except ValueError as error:
            raise UsageError(f"{key}: {pattern!r} names layers that this model has not; {error}") from error


def _without_layers(pattern: str) -> str:
    found = _OF_LAYERS.fullmatch(pattern)
    return pattern if found is None else f"layers.{found['rest']}"
