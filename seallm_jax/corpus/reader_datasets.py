"""Hugging Face datasets by name, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.input_file import InputFile


def find_shards(address: str) -> list[InputFile]:
    """The shards of `datasets://name[@config][:split]`, as many as the data set has files.

    Raises:
      SeallmError: `datasets` is missing, or there is no such data set, configuration or split.
    """
    count = max(1, _stream(address).num_shards)
    name = address.removeprefix("datasets://")
    return [
        InputFile(address, f"{name}#{shard}" if count > 1 else name, "datasets", shard=shard, num_shards=count)
        for shard in range(count)
    ]


def read_rows(file: InputFile, config: CorpusConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """One record a row of the shard."""
    stream = _stream(file.address)
    if file.num_shards > 1:
        stream = stream.shard(num_shards=file.num_shards, index=file.shard)
    try:
        for number, record in enumerate(stream, start=1):
            yield f"{file.name}:{number}", record
    except Exception as error:
        raise SeallmError(f"{_failed(file.address, error)}; run again to continue") from error


def _stream(address: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise SeallmError(f"reading {address} needs datasets: pip install 'seallm_jax[datasets]'") from None
    rest, _, split = address.removeprefix("datasets://").partition(":")
    name, _, configuration = rest.partition("@")
    try:
        return datasets.load_dataset(name, configuration or None, split=split or "train", streaming=True)
    except Exception as error:
        raise _failed(address, error) from error


def _failed(address: str, error: Exception) -> SeallmError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SeallmError(f"cannot read {address}: {reason}")
