"""Which parameters a stage trains: patterns over dotted paths, and the two parts of the tree that they make.

A part has the structure of the whole tree, with None (no leaf) where the parameter belongs to the other part, so that
`jax.grad`, optax and checkpoints see only its own parameters.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from seallm_jax.core.errors import UsageError
from seallm_jax.models.layout import path_name

ALL = ("*",)


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
    """Whether a dotted path matches one of the patterns, as `fnmatch.fnmatchcase` does."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def group_of(path: str) -> str:
    """What telemetry counts a parameter as: embedding, head, attention, mlp, norm or adapter."""
    if ".lora_" in path or path.endswith("new_rows"):
        return "adapter"
    parts = path.split(".")
    return "norm" if "norm" in path else parts[1] if parts[0] == "layers" else parts[0]


def multiplier(path: str, multipliers: Mapping[str, float]) -> float:
    """The learning-rate multiplier of a path: that of its longest matching pattern, the first among equals, else 1."""
    found = [pattern for pattern in multipliers if fnmatch.fnmatchcase(path, pattern)]
    return multipliers[max(found, key=len)] if found else 1.0


def check_patterns(parameters: Any, patterns: Iterable[str], key: str) -> None:
    """Raises UsageError naming `key` and listing the paths if a pattern matches no parameter."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(parameters)[0]]
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            raise UsageError(f"{key}: {pattern!r} matches no parameter; there are {', '.join(paths)}")
