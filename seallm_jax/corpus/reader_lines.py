"""JSON lines and plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.input_file import InputFile


def read_json_lines(file: InputFile, config: CorpusConfig) -> Iterator[Rejected | tuple[str, dict[str, Any]]]:
    """One record a line; a line that is no JSON object in UTF-8 is rejected."""
    with file.open() as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            source = f"{file.name}:{number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield Rejected(source, "invalid UTF-8", num_bytes=len(line), excerpt=excerpt(error))
                continue
            except (json.JSONDecodeError, RecursionError):
                yield Rejected(source, "invalid JSON", num_bytes=len(line), excerpt=_readable(line[:120]))
                continue
            if isinstance(record, dict):
                yield source, record
            else:
                yield Rejected(source, f"no text in {config.text_key!r}", excerpt=str(record)[:200])


def read_blocks(file: InputFile, config: CorpusConfig) -> Iterator[Document | Rejected]:
    """One document a block of lines; blank lines separate blocks. The language is left open."""
    block: list[bytes] = []
    first = 1
    with file.open() as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                first = first if block else number
                block.append(line)
            elif block:
                yield _block(block, f"{file.name}:{first}")
                block = []
    if block:
        yield _block(block, f"{file.name}:{first}")


def excerpt(error: UnicodeDecodeError) -> str:
    """What stands around the bytes that cannot be decoded."""
    start = max(0, error.start - 40)
    return _readable(error.object[start : start + 120])


def _block(lines: list[bytes], source: str) -> Document | Rejected:
    content = b"".join(lines)
    try:
        return Document(content.decode("utf-8-sig"), "", source)
    except UnicodeDecodeError as error:
        return Rejected(source, "invalid UTF-8", num_bytes=len(content), excerpt=excerpt(error))


def _readable(content: bytes) -> str:
    return content.decode("utf-8", errors="backslashreplace").strip()
