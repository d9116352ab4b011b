"""Where the corpus stage puts its documents: one file a language, or parts where several tasks wrote."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_jsonl

# LL.jsonl or LL-00007.jsonl; a code may carry a script, as in zh-Hant
_FILE = re.compile(r"(?P<language>[A-Za-z]{2,8}(?:[-_][A-Za-z]{2,8})*)(?:-(?P<part>\d{5}))?\.jsonl")


def corpus_files(directory: pathlib.Path, language: str) -> list[pathlib.Path]:
    """The files of one language in `directory` (`train/`, `heldout/`, `parallel/`, ...), in the order of their parts.

    Raises:
      SeallmError: there is none.
    """
    files = _by_language(directory).get(language)
    if not files:
        raise SeallmError(f"{directory} has no file {language}.jsonl")
    return files


def corpus_languages(directory: pathlib.Path) -> list[str]:
    """Codes of the languages that have files in `directory`, sorted; none when the directory does not exist."""
    return sorted(_by_language(directory))


def corpus_texts(directory: pathlib.Path, language: str) -> Iterator[str]:
    """The texts of one language in `directory`, in the order of its files. Errors as `corpus_files`."""
    return (record["text"] for path in corpus_files(directory, language) for record in read_jsonl(path))


def part_name(language: str, part: int | None = None) -> str:
    """Name of a language's file, or of the part that one task wrote."""
    return f"{language}.jsonl" if part is None else f"{language}-{part:05d}.jsonl"


def _by_language(directory: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(directory.glob("*.jsonl")):
        if match := _FILE.fullmatch(path.name):
            found.setdefault(match["language"], []).append(path)
    return found
