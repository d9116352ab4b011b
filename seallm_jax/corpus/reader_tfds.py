"""TensorFlow Datasets by name, read as random-access sources, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.input_file import InputFile

SHARD_RECORDS = 100_000  # what one task reads at a time; fixed, so that positions do not depend on the tasks


def find_shards(address: str) -> list[InputFile]:
    """The shards of `tfds://name[/config][:split]`; the data set is prepared first where it is not.

    Raises:
      SeallmError: tensorflow-datasets is missing, or there is no such data set or split.
    """
    source = _source(address)
    count = max(1, -(-len(source) // SHARD_RECORDS))
    name = address.removeprefix("tfds://")
    return [
        InputFile(
            address,
            f"{name}#{shard}" if count > 1 else name,
            "tfds",
            size=min(SHARD_RECORDS, len(source) - shard * SHARD_RECORDS),
            shard=shard,
            num_shards=count,
        )
        for shard in range(count)
    ]


def read_examples(file: InputFile, config: CorpusConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """One record an example; texts are bytes."""
    source = _source(file.address)
    first = file.shard * SHARD_RECORDS
    for number in range(first, min(first + SHARD_RECORDS, len(source))):
        yield f"{file.name}:{number + 1}", source[number]


def _source(address: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise SeallmError(f"reading {address} needs tensorflow-datasets: pip install 'seallm_jax[tfds]'") from None
    name, _, split = address.removeprefix("tfds://").partition(":")
    try:
        builder = tfds.builder(name, file_format="array_record")
        builder.download_and_prepare()
        return builder.as_data_source(split=split or "train")
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SeallmError(f"cannot read {address}: {reason}") from error
