"""Aligned sentences: the same meaning in several languages, line by line."""

from __future__ import annotations

import pathlib

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.core.paths import read_jsonl
from seallm_jax.corpus.normalize import normalize_text


def read_parallel(path: pathlib.Path) -> dict[str, list[str]]:
    """Language code -> sentences; the n-th sentences of all languages mean the same.

    `path` is a directory of `LL.txt` files with one sentence a line, or a .jsonl file (or a directory of them) whose
    records hold one sentence a language under its code.

    Raises:
      SeallmError: files of different lengths, or no aligned sentences.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else []
    if files:
        sentences = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in files}
        lengths = {code: len(lines) for code, lines in sentences.items()}
        if len(set(lengths.values())) > 1:
            raise SeallmError(f"{path}: aligned files must have the same number of lines, got {lengths}")
    else:
        records = [record for file in _json_files(path) for record in read_jsonl(file)]
        codes = [code for code in KNOWN_LANGUAGES if all(isinstance(record.get(code), str) for record in records)]
        sentences = {code: [record[code] for record in records] for code in codes}
    if len(sentences) < 2 or not any(sentences.values()):
        raise SeallmError(f"{path} has no aligned sentences: LL.txt files, or .jsonl records with a field a language")
    return {code: [normalize_text(line) for line in lines] for code, lines in sentences.items()}


def _json_files(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
