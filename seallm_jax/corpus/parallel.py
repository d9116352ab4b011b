"""Aligned sentences: the same meaning in several languages, line by line."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.corpus.repair import repair_text

_SIMILARITY_KEYS = ("similarity", "score", "laser_score")
_DOCUMENT_KEYS = ("document", "document_id", "doc_id")


@dataclasses.dataclass(frozen=True)
class AlignedRecord:
    """Sentences that mean the same.

    Attributes:
      sentences: language code -> sentence, as it stands in the file.
      source: where the record stands, as `ntrex.jsonl:12`.
      similarity: how alike the sides are, where the record says it.
      document: which document the sentence is part of; empty when it is not known.
    """

    sentences: Mapping[str, str]
    source: str
    similarity: float | None = None
    document: str = ""


def read_aligned(path: pathlib.Path) -> Iterator[AlignedRecord]:
    """Yields the aligned sentences at `path`, one record after the other.

    A .jsonl or .jsonl.gz file has a field a language, or one field `translation` that holds them (as Hugging Face data
    sets do), perhaps a `similarity` (or `score`) and a `document`. A directory has such files, or `LL.txt` files with
    one sentence a line, or pairs of files as OPUS names them, `NAME.en-km.en` and `NAME.en-km.km`.

    Raises:
      SeallmError: files of different lengths, a damaged line, or no aligned sentences.
    """
    if not path.exists():
        raise SeallmError(f"parallel path {path} does not exist")
    groups = _text_files(path) if path.is_dir() else []
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
    empty = True
    for group in groups:
        for record in _read_lines(group):
            empty = False
            yield record
    for file in files:
        for record in _read_json(file):
            empty = False
            yield record
    if empty:
        raise SeallmError(f"{path} has no aligned sentences: LL.txt files, or .jsonl records with a field a language")


def read_parallel(path: pathlib.Path) -> dict[str, list[str]]:
    """Language code -> sentences; the n-th sentences of all languages mean the same.

    The languages are those that every record of `path` has; it is read by `read_aligned`, the sentences are repaired.

    Raises:
      SeallmError: files of different lengths, a damaged line, or no aligned sentences.
    """
    records = [record.sentences for record in read_aligned(path)]
    codes = [code for code in KNOWN_LANGUAGES if all(code in sentences for sentences in records)]
    if len(codes) < 2:
        raise SeallmError(f"{path} has no two languages in all of its records")
    return {code: [repair_text(sentences[code], code) for sentences in records] for code in codes}


def language_pairs(codes: Sequence[str], wanted: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Pairs of the languages of a record: those in `wanted` (as `en-km`, in either order), or, when it is empty, every
    pair with English, and all pairs where English is missing."""
    pairs = list(itertools.combinations(sorted(codes, key=lambda code: (code != "en", code)), 2))
    if wanted:
        return [pair for pair in pairs if "-".join(pair) in wanted or "-".join(pair[::-1]) in wanted]
    return [pair for pair in pairs if "en" in pair] if "en" in codes else pairs


def _text_files(directory: pathlib.Path) -> list[dict[str, pathlib.Path]]:
    """Groups of aligned files: language code -> file."""
    by_name: dict[str, dict[str, pathlib.Path]] = {}
    for file in sorted(file for file in directory.iterdir() if file.is_file()):
        *name, pair, code = ["", *file.name.split(".")]
        if code == "txt" and pair in KNOWN_LANGUAGES:
            by_name.setdefault("", {})[pair] = file
        elif code in pair.split("-") and len(pair.split("-")) == 2:
            by_name.setdefault(".".join([*name, pair]), {})[code] = file
    return [group for group in by_name.values() if len(group) > 1]


def _read_lines(files: Mapping[str, pathlib.Path]) -> Iterator[AlignedRecord]:
    lines = {code: _decode(file, file.read_bytes()).splitlines() for code, file in files.items()}
    lengths = {code: len(sentences) for code, sentences in lines.items()}
    if len(set(lengths.values())) > 1:
        directory = next(iter(files.values())).parent
        raise SeallmError(f"{directory}: aligned files must have the same number of lines, got {lengths}")
    name = next(iter(files.values())).name
    for number, sentences in enumerate(zip(*lines.values(), strict=True), start=1):
        yield AlignedRecord(dict(zip(lines, sentences, strict=True)), f"{name}:{number}")


def _read_json(file: pathlib.Path) -> Iterator[AlignedRecord]:
    number = 0
    try:
        with gzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and (record := _record(json.loads(line), f"{file.name}:{number}")):
                    yield record
    except (OSError, EOFError, ValueError) as error:  # damaged JSON and undecodable bytes are ValueErrors
        raise SeallmError(f"{file}:{number}: not a valid UTF-8 JSON line: {error}; repair or remove it") from error


def _record(value: Any, source: str) -> AlignedRecord | None:
    if not isinstance(value, dict):
        return None
    fields = value["translation"] if isinstance(value.get("translation"), dict) else value
    sentences = {code: fields[code] for code in KNOWN_LANGUAGES if isinstance(fields.get(code), str)}
    if len(sentences) < 2:
        return None
    scores = [value[key] for key in _SIMILARITY_KEYS if isinstance(value.get(key), int | float)]
    documents = [str(value[key]) for key in _DOCUMENT_KEYS if isinstance(value.get(key), str | int)]
    return AlignedRecord(sentences, source, float(scores[0]) if scores else None, documents[0] if documents else "")


def _decode(file: pathlib.Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SeallmError(f"{file} is not UTF-8: {error.reason} at byte {error.start}; convert the file") from error
