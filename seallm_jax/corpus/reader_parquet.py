"""Parquet files, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.document import Rejected
from seallm_jax.corpus.input_file import InputFile

BATCH_ROWS = 1024
DAMAGED = "damaged row group"


def read_rows(file: InputFile, config: CorpusConfig) -> Iterator[Rejected | tuple[str, dict[str, Any]]]:
    """One record a row. A damaged row group is rejected as one record, and the next is read.

    Raises:
      SeallmError: the file has no column `config.text_key`.
    """
    import pyarrow
    import pyarrow.parquet

    damage = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
    with file.open() as stream:
        try:
            table = pyarrow.parquet.ParquetFile(stream)
        except damage as error:
            raise EOFError(_first_line(error)) from error
        names = table.schema_arrow.names
        if config.text_key not in names:
            raise SeallmError(
                f"{file.address} has no column {config.text_key!r}, only {', '.join(names)}; "
                "name the text column with --config.corpus.text_key=NAME"
            )
        columns = [key for key in dict.fromkeys((config.text_key, config.language_key, "url")) if key in names]
        first = 1
        for group in range(table.num_row_groups):
            number = first
            try:
                for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                    for record in batch.to_pylist():
                        yield f"{file.name}:{number}", record
                        number += 1
            except damage as error:
                yield Rejected(f"{file.name}:{number}", DAMAGED, excerpt=_first_line(error))
            first += table.metadata.row_group(group).num_rows


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
