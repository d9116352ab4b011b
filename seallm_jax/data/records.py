"""Records of instruction and preference files, with the place each comes from."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json

DATASET_INFO = "dataset_info.json"
SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".csv", ".parquet")


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
      value: its fields; None when it could not be read.
      position: where it stands, as `file.jsonl:12`.
      layout: the entry of dataset_info.json that describes its file; empty when there is none.
    """

    value: dict[str, Any] | None
    position: str
    layout: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_records(path: pathlib.Path, *, ranking: bool = False) -> Iterator[Record]:
    """Records of a file, or of all files of a directory in the order of their names.

    A directory with LLaMA-Factory's `dataset_info.json` is read by it: the local files of the entries that are there
    and whose `ranking` is the one asked for, each with its formatting, columns and tags.

    Raises:
      SeallmError: nothing to read, a file type that is not known, or a file that is damaged as a whole.
    """
    for file, layout in record_files(path, ranking=ranking):
        for number, value in _read_file(file):
            yield Record(value if isinstance(value, dict) else None, f"{file.name}:{number}", layout)


def record_files(path: pathlib.Path, *, ranking: bool = False) -> list[tuple[pathlib.Path, dict[str, Any]]]:
    """The files that `read_records` reads, each with its entry of dataset_info.json (or nothing)."""
    path = pathlib.Path(path)
    if not path.exists():
        raise SeallmError(f"{path} does not exist")
    if not path.is_dir():
        return [(path, {})]
    if (path / DATASET_INFO).exists():
        files = _listed_files(path, ranking)
        what = "preference pairs (ranking: true)" if ranking else "instructions"
        if not files:
            raise SeallmError(f"{path / DATASET_INFO} lists no local file of {what}")
        return files
    files = [(file, {}) for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES)]
    if not files:
        raise SeallmError(f"{path} holds no file of the types {', '.join(SUFFIXES)}")
    return files


def _listed_files(path: pathlib.Path, ranking: bool) -> list[tuple[pathlib.Path, dict[str, Any]]]:
    entries = read_json(path / DATASET_INFO)
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise SeallmError(f"{path / DATASET_INFO} must map names to entries, as LLaMA-Factory's does")
    files = []
    for entry in entries.values():
        file = path / str(entry.get("file_name", ""))
        if "file_name" in entry and file.exists() and bool(entry.get("ranking")) == ranking:
            inside = sorted(file.iterdir()) if file.is_dir() else [file]
            files += [(one, entry) for one in inside if one.name.endswith(SUFFIXES)]
    return files


def _read_file(file: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """(number of the line, element or row, from 1; value or None when it is damaged)."""
    try:
        if file.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _read_lines(file)
        elif file.name.endswith(".json"):
            text = file.read_text(encoding="utf-8-sig")
            try:
                values = json.loads(text)
            except json.JSONDecodeError:
                yield from _read_lines(file)  # JSON lines under the name .json are common
                return
            yield from enumerate(values if isinstance(values, list) else [values], start=1)
        elif file.name.endswith(".csv"):
            with open(file, encoding="utf-8-sig", newline="") as stream:
                yield from enumerate(csv.DictReader(stream), start=1)
        elif file.name.endswith(".parquet"):
            import pyarrow.parquet

            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1024):
                for value in batch.to_pylist():
                    number += 1
                    yield number, value
        else:
            raise SeallmError(f"{file} is of no known type; use one of {', '.join(SUFFIXES)}")
    except (OSError, ValueError, EOFError, csv.Error) as error:  # pyarrow's errors are ValueError or OSError, too
        raise SeallmError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error


def _read_lines(file: pathlib.Path) -> Iterator[tuple[int, Any]]:
    with gzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except (json.JSONDecodeError, UnicodeDecodeError):
                yield number, None
