"""JSON-lines, Parquet and plain-text files to documents."""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Iterator

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.core.schema import CorpusConfig
from seallm_jax.corpus.document import Document, Rejected

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".txt")
PARQUET_BATCH_ROWS = 1024


def find_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The readable files at or below `path`, in sorted order.

    Raises:
      SeallmError: the path does not exist or holds no .jsonl, .jsonl.gz, .parquet or .txt file.
    """
    if not path.exists():
        raise SeallmError(f"corpus path {path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    readable = [p for p in files if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
    if not readable:
        raise SeallmError(f"corpus path {path} has no {', '.join(SUFFIXES)} file")
    return readable


def read_documents(file: pathlib.Path, config: CorpusConfig) -> Iterator[Document | Rejected]:
    """Yields every record of one file, as a document or as a rejected record with its position and reason.

    A .jsonl line or a Parquet row has the text in `config.text_key` and, if known, the language in
    `config.language_key`. A .txt file holds one document a block of lines, blocks separated by blank lines. A file that
    is named after a language code, as in `km.txt`, gives that language to records that carry none.

    Raises:
      SeallmError: the file as a whole cannot be read; the message names it.
    """
    try:
        if file.name.endswith(".parquet"):
            records = _read_parquet(file, config)
        elif file.name.endswith(".txt"):
            records = _read_text(file)
        else:
            records = _read_json_lines(file, config)
        yield from records
    except (OSError, EOFError) as error:
        raise SeallmError(f"cannot read {file}: {error}; repair or remove the file") from error


def _file_language(file: pathlib.Path) -> str:
    stem = file.name.split(".")[0]
    return stem if stem in KNOWN_LANGUAGES else ""


def _read_json_lines(file: pathlib.Path, config: CorpusConfig) -> Iterator[Document | Rejected]:
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            source = f"{file.name}:{number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield Rejected(source, "invalid UTF-8", num_bytes=len(line), excerpt=_excerpt(line, error.start))
                continue
            except json.JSONDecodeError:
                yield Rejected(source, "invalid JSON", num_bytes=len(line), excerpt=_excerpt(line, 0))
                continue
            yield _document(record, source, file, config)


def _read_parquet(file: pathlib.Path, config: CorpusConfig) -> Iterator[Document | Rejected]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        columns = [key for key in (config.text_key, config.language_key) if key in table.schema_arrow.names]
        if config.text_key not in columns:
            raise SeallmError(
                f"{file} has no column {config.text_key!r}, only {', '.join(table.schema_arrow.names)}; "
                "name the text column with --config.corpus.text_key=NAME"
            )
        number = 0
        for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=columns):
            for record in batch.to_pylist():
                number += 1
                yield _document(record, f"{file.name}:{number}", file, config)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise SeallmError(f"{file} is damaged or truncated: {reason}; repair or remove the file") from error


def _read_text(file: pathlib.Path) -> Iterator[Document | Rejected]:
    block: list[bytes] = []
    first = 1
    with open(file, "rb") as stream:
        for number, line in enumerate([*stream, b""], start=1):
            if line.strip():
                if not block:
                    first = number
                block.append(line)
            elif block:
                source = f"{file.name}:{first}"
                content = b"".join(block)
                block = []
                try:
                    yield Document(content.decode("utf-8-sig"), _file_language(file), source)
                except UnicodeDecodeError as error:
                    yield Rejected(
                        source, "invalid UTF-8", num_bytes=len(content), excerpt=_excerpt(content, error.start)
                    )


def _document(record: object, source: str, file: pathlib.Path, config: CorpusConfig) -> Document | Rejected:
    text = record.get(config.text_key) if isinstance(record, dict) else None
    if not isinstance(text, str):
        return Rejected(source, f"no text in {config.text_key!r}", excerpt=str(record)[:200])
    language = record.get(config.language_key) if isinstance(record, dict) else None
    return Document(text, language if isinstance(language, str) else _file_language(file), source)


def _excerpt(content: bytes, position: int) -> str:
    start = max(0, position - 40)
    return content[start : start + 120].decode("utf-8", errors="backslashreplace").strip()
