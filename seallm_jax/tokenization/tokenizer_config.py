"""What a Hugging Face folder says of its tokenizer beside the vocabulary: tokenizer_config.json and the template."""

from __future__ import annotations

import pathlib
from typing import Any

from seallm_jax.core.paths import read_json

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"


def read_tokenizer_config(directory: pathlib.Path) -> dict[str, Any]:
    """Contents of tokenizer_config.json; empty when `directory` has none or is a file."""
    path = directory / CONFIG_NAME
    return read_json(path) if directory.is_dir() and path.exists() else {}


def saved_template(directory: pathlib.Path, config: dict[str, Any]) -> str | None:
    """The chat template of a folder: chat_template.jinja, or the (default) one in the config; None without one."""
    file = directory / TEMPLATE_NAME
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates: the default one
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def token_text(token: Any) -> str | None:
    """Text of a token that a config writes as a string or as an object; None where there is none."""
    return token.get("content") if isinstance(token, dict) else token


def maximum_length(config: dict[str, Any]) -> int | None:
    """`model_max_length`; None when it is missing or one of the huge numbers that stand for unknown."""
    length = config.get("model_max_length")
    return int(length) if length is not None and length < 1e9 else None
