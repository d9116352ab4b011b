"""From `ml_collections.ConfigDict` and command-line overrides to frozen dataclasses, with errors that name the key."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import pathlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import ml_collections

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import RunConfig

T = TypeVar("T")


def load_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Runs `get_config()` of a config file, applies `--config.key=value` overrides and checks the result.

    A file for several models is given one of their names, as in configs/base_models.py:qwen3_8b, and `get_config` gets
    it.

    Raises:
      UsageError: a missing file, an unknown key, a wrong type or an impossible value, naming the key and the value.
    """
    config = _read_config_file(str(path))
    for override in overrides:
        apply_override(config, override)
    return build(RunConfig, config.to_dict(), "config")


def apply_override(config: ml_collections.ConfigDict, override: str) -> None:
    """Applies one `--config.a.b=value` to `config`. The value is a Python literal, or else a string."""
    key, separator, text = override.removeprefix("--").partition("=")
    if not key.startswith("config.") or not separator:
        raise UsageError(f"cannot read {override!r}: an override looks like --config.corpus.path=DIR")
    parts = key.split(".")[1:]
    node, schema, trail = config, RunConfig, "config"
    for part in parts[:-1]:
        schema = _field_type(schema, part, trail)
        trail = f"{trail}.{part}"
        if isinstance(node, ml_collections.ConfigDict) and part not in node:
            node[part] = ml_collections.ConfigDict()
        try:
            node = node[int(part)] if isinstance(node, tuple | list) else node[part]
        except (ValueError, IndexError, KeyError, TypeError):
            raise UsageError(f"{trail} does not exist: {override!r} cannot be applied") from None
    value = _literal(text)
    if isinstance(value, dict):  # patterns of parameter paths have dots
        value = ml_collections.ConfigDict(value, allow_dotted_keys=True)
    if isinstance(node, ml_collections.ConfigDict):
        _field_type(schema, parts[-1], trail)
        with node.ignore_type():
            node[parts[-1]] = value
    else:
        raise UsageError(f"{trail} is not a section: {override!r} cannot be applied")


def build(cls: type[T], values: Mapping[str, Any], trail: str) -> T:
    """Builds the dataclass `cls` from a mapping, recursively. `trail` is the dotted name used in errors."""
    if isinstance(values, ml_collections.ConfigDict):  # a section inside a list
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise UsageError(f"{trail} must be a section with the keys {', '.join(_names(cls))}, got {values!r}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise UsageError(_unknown_key(key, trail, hints))
    arguments = {key: _convert(hints[key], value, f"{trail}.{key}") for key, value in values.items()}
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UsageError(f"{trail}.{error}") from None
    except TypeError as error:
        raise UsageError(f"{trail}: {str(error).replace('__init__() ', '')}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved configuration (or a section of it) as plain JSON-like data."""
    return dataclasses.asdict(config)


def _read_config_file(name: str) -> ml_collections.ConfigDict:
    stem, separator, argument = name.partition(".py:")
    path = pathlib.Path(f"{stem}.py" if separator else name)
    if not path.is_file():
        raise UsageError(f"config file {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"seallm_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"config file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(argument) if separator else module.get_config()
    except Exception as error:
        raise UsageError(f"config file {path} failed: {type(error).__name__}: {error}") from error


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _unknown_key(key: str, trail: str, known) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {trail}.{close[0]}?" if close else f"{trail} has {', '.join(known)}"
    return f"unknown key {trail}.{key}; {hint}"


def _field_type(schema: Any, name: str, trail: str) -> Any:
    """The type of field `name` below `schema`; None below a free-form mapping."""
    if dataclasses.is_dataclass(schema):
        hints = typing.get_type_hints(schema)
        if name not in hints:
            raise UsageError(_unknown_key(name, trail, hints))
        return hints[name]
    if typing.get_origin(schema) is tuple:
        return typing.get_args(schema)[0]
    return None


def _convert(hint: Any, value: Any, trail: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, trail)
    if origin is typing.Literal:
        if value in arguments:
            return value
        close = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        hint_text = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(map(repr, arguments))}"
        raise UsageError(f"{trail} is {value!r}; {hint_text}")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, trail)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            value = (value,)
        return tuple(_convert(arguments[0], item, f"{trail}[{index}]") for index, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise UsageError(f"{trail} must be a mapping, got {value!r}")
        return {str(key): _convert(arguments[1], item, f"{trail}[{key!r}]") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is str and isinstance(value, pathlib.PurePath):
        return str(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{trail} must be {_type_name(hint)}, got {value!r}")
    return value


def _type_name(hint: type) -> str:
    return {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}.get(
        hint.__name__, hint.__name__
    )
