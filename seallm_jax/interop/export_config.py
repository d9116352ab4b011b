"""config.json and generation_config.json of an exported folder."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.model_files import ModelFiles
from seallm_jax.interop.tokenizer_files import TokenizerFolder
from seallm_jax.models.families.registry import family_named


def model_values(
    config: ModelConfig, tokenizer: TokenizerFolder, base: ModelFiles | None, *, dtype: str
) -> dict[str, Any]:
    """Values of config.json. Token ids are those of the base where it has them, as lists too, else the tokenizer's."""
    carried = base.config if base is not None else {}
    ids = {key: carried.get(key) for key in tokenizer.ids if carried.get(key) is not None}
    # `torch_dtype` is what transformers 4 and vLLM read, `dtype` what transformers 5 writes
    types = {"dtype": dtype, "torch_dtype": dtype}
    return family_named(config.family).config_to_huggingface(config) | tokenizer.ids | ids | types


def generation_values(tokenizer: TokenizerFolder, base: ModelFiles | None) -> dict[str, Any]:
    """Values of generation_config.json: those of the base, and what it does not say from the tokenizer.

    Generation stops where the base's does, and at the end of a text and of a chat turn.
    """
    values = (
        {}
        if base is None
        else base.generation or {key: value for key, value in base.config.items() if key in tokenizer.ids}
    )
    ids: dict[str, Any] = {
        key: index for key, index in tokenizer.ids.items() if values.get(key) is None and index is not None
    }
    stops = _as_list(values.get("eos_token_id"))
    more = [index for index in tokenizer.stop_ids if index not in stops]
    if more:
        ids["eos_token_id"] = [*stops, *more]
    return values | ids


def _as_list(ids: Any) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids or [])
