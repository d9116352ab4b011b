"""The texts of evaluation files, with the lines where they stand."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from seallm_jax.core.errors import SeallmError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".txt", ".parquet")


@dataclasses.dataclass(frozen=True)
class EvaluationText:
    """A text that must not be trained on, and where it stands, as `xcopa_val_id.jsonl:12`."""

    text: str
    source: str


def read_evaluation_texts(paths: Iterable[pathlib.Path]) -> Iterator[EvaluationText]:
    """All strings of evaluation files: multiple-choice items, questions, aligned sentences, conversations.

    Reads .jsonl, .json, .txt (a text a line) and .parquet files, and directories of them; every string at any depth of
    a record is a text of its own. The number in `source` is that of the line, or of the record in .json and .parquet.

    Raises:
      SeallmError: a path does not exist, a directory has no such file, a file is damaged or holds no text.
    """
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        if not files or not path.exists():
            raise SeallmError(f"evaluation path {path} has no {', '.join(SUFFIXES)} file")
        for file in files:
            yield from _read_file(file)


def _read_file(file: pathlib.Path) -> Iterator[EvaluationText]:
    empty = True
    number = 0
    try:
        for number, record in _records(file):
            for text in _strings(record):
                empty = False
                yield EvaluationText(text, f"{file.name}:{number}")
    except (OSError, EOFError, ValueError) as error:  # undecodable bytes, damaged JSON and Parquet are ValueErrors
        detail = str(error).splitlines()[0]
        raise SeallmError(f"{file} is damaged after record {number}: {detail}; repair or remove the file") from error
    if empty:
        raise SeallmError(f"evaluation file {file} holds no text; repair or remove the file")


def _records(file: pathlib.Path) -> Iterator[tuple[int, Any]]:
    if file.name.endswith(".parquet"):
        import pyarrow.parquet

        batches = pyarrow.parquet.ParquetFile(file).iter_batches(1024)
        yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
    elif file.name.endswith(".json"):
        content = json.loads(file.read_bytes())
        yield from enumerate(content if isinstance(content, list) else [content], start=1)
    else:
        with gzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.decode("utf-8-sig") if file.name.endswith(".txt") else json.loads(line)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child)
