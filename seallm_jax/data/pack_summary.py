"""What packing tells of a shard, and how it knows that a shard is up to date."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import Any

from seallm_jax.core.paths import read_json, value_digest
from seallm_jax.data import shard_index
from seallm_jax.data.shard_index import INDEX_FILE, ShardIndex
from seallm_jax.tokenization.tokenizer import Tokenizer

VERSION = 2
Summary = list[dict[str, Any]]


def summary_row(index: ShardIndex) -> dict[str, Any]:
    """What a summary table says of a shard."""
    return {
        "source": index.name,
        "documents": index.documents,
        "rows": index.rows,
        "tokens": index.tokens,
        "fill": index.fill,
        "truncated": index.truncated,
        "dropped": index.dropped,
    }


def inputs_digest(tokenizer: Tokenizer, sequence_length: int, more: dict[str, Any]) -> str:
    """SHA-256 of everything that a shard is made from."""
    own = {"version": VERSION, "tokenizer": tokenizer.digest, "sequence_length": sequence_length}
    return value_digest(own | {"bos": tokenizer.begin_id, "eos": tokenizer.end_id} | more)


def finished_shard(directory: pathlib.Path, inputs: str) -> ShardIndex | None:
    """The index of a shard that was made from these inputs, if it is there."""
    path = directory / INDEX_FILE
    if not path.exists() or read_json(path).get("version") != shard_index.VERSION:
        return None
    index = ShardIndex.read(directory)
    return index if index.inputs_digest == inputs else None


def forget_others(directory: pathlib.Path, languages: Collection[str]) -> None:
    """Removes the index of every shard in `directory` (a kind) of another language, which earlier inputs have left."""
    for index in directory.glob(f"*/{INDEX_FILE}"):
        if index.parent.name not in languages:
            index.unlink()
