"""Files of any format to documents; what cannot be read becomes a rejected record, never a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.corpus import reader_datasets, reader_lines, reader_parquet, reader_tfds, reader_warc
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.input_file import InputFile, find_files, is_damage

__all__ = ["DAMAGED", "UNREADABLE", "InputFile", "find_files", "read_documents"]

DAMAGED = "damaged file"
UNREADABLE = (DAMAGED, reader_parquet.DAMAGED, reader_warc.TRUNCATED, "invalid UTF-8", "invalid JSON")
Record = Document | Rejected | tuple[str, Mapping[str, Any]]
READERS: dict[str, Callable[[InputFile, CorpusConfig], Iterator[Record]]] = {
    "jsonl": reader_lines.read_json_lines,
    "text": reader_lines.read_blocks,
    "parquet": reader_parquet.read_rows,
    "warc": reader_warc.read_pages,
    "tfds": reader_tfds.read_examples,
    "datasets": reader_datasets.read_rows,
}


def read_documents(file: InputFile, config: CorpusConfig) -> Iterator[Document | Rejected]:
    """Yields every record of one file, as a document or as a rejected record with its position and reason.

    A JSON line, a Parquet row or an example of a data set has the text in `config.text_key` and, if known, the language
    in `config.language_key` and the address in `url`. A text file holds one document a block of lines, blocks separated
    by blank lines. A WARC file holds web pages, or their text (WET). A file that is named after a language code, as in
    `km.txt.gz`, gives that language to records that carry none. Where a file turns out to be damaged, what stands
    before is read and a rejected record says where and why reading stopped.

    Raises:
      SeallmError: the file cannot be reached, or the package that reads it is missing; the message names it.
    """
    position = 0
    try:
        for record in READERS[file.format](file, config):
            position += 1
            if isinstance(record, tuple):
                record = _document(*record, file, config)
            elif isinstance(record, Document) and not record.language:
                record = Document(record.text, _file_language(file), record.source, record.url)
            yield record
    except FileNotFoundError as error:
        raise SeallmError(f"{file.address} has disappeared; bring it back, or run again without it") from error
    except Exception as error:
        if is_damage(error):
            detail = str(error) or type(error).__name__
            yield Rejected(f"{file.name}:{position + 1}", DAMAGED, excerpt=detail)
        elif isinstance(error, OSError):
            raise SeallmError(
                f"cannot read {file.address}: {error.strerror or error}; run again to continue"
            ) from error
        else:
            raise


def _file_language(file: InputFile) -> str:
    stem = file.name.rpartition("/")[2].split(".")[0]
    return stem if stem in KNOWN_LANGUAGES else ""


def _document(source: str, record: Mapping[str, Any], file: InputFile, config: CorpusConfig) -> Document | Rejected:
    values = (record.get(key) for key in (config.text_key, config.language_key, "url"))
    try:
        text, language, url = (value.decode() if isinstance(value, bytes) else value for value in values)
    except UnicodeDecodeError as error:
        return Rejected(source, "invalid UTF-8", num_bytes=len(error.object), excerpt=reader_lines.excerpt(error))
    if not isinstance(text, str):
        return Rejected(source, f"no text in {config.text_key!r}", excerpt=str(record)[:200])
    language = language if isinstance(language, str) else _file_language(file)
    return Document(text, language, source, url if isinstance(url, str) else "")
