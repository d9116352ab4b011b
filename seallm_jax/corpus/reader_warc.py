"""Web archives: pages (WARC), whose main text is extracted, and text that was extracted before (WET)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.input_file import InputFile

HTML = ("text/html", "application/xhtml+xml")
RECORD_END = b"\r\n\r\n"
TRUNCATED = "truncated record"


def read_pages(file: InputFile, config: CorpusConfig) -> Iterator[Document | Rejected]:
    """One document a page, by trafilatura, or a conversion record. Requests and metadata are no documents.

    Raises:
      SeallmError: warcio or trafilatura is not installed.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise _missing("warcio") from None
    with file.open() as raw:
        stream = _Stream(raw)
        number = 0
        whole = True
        try:
            for number, record in enumerate(ArchiveIterator(stream), start=1):
                if record.rec_type in ("response", "conversion"):
                    page = _page(record, f"{file.name}:{number}")
                    whole = not isinstance(page, Rejected) or page.reason != TRUNCATED
                    yield page
        except ArchiveLoadFailed as error:
            raise EOFError(f"record {number + 1}: {error}") from error
        if stream.error is not None:
            raise stream.error
        if whole and number and stream.end != RECORD_END:
            raise EOFError(f"ends inside record {number + 1}")


class _Stream:
    """Decompressed bytes for warcio, which takes damage for the end: errors and the last bytes are remembered."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.error: Exception | None = None
        self.end = b""

    def read(self, size: int = -1) -> bytes:
        try:
            content = self._stream.read(size)
        except Exception as error:
            self.error = error
            raise
        self.end = (self.end + content[-len(RECORD_END) :])[-len(RECORD_END) :]
        return content


def _page(record: Any, source: str) -> Document | Rejected:
    url = record.rec_headers.get_header("WARC-Target-URI") or ""
    content = record.content_stream().read()
    # bytes that the header promises and the file does not have; a header that is cut promises none
    if getattr(record.raw_stream, "limit", 1) > 0:
        return Rejected(source, TRUNCATED, num_bytes=len(content), excerpt=url)
    if record.rec_type == "conversion":
        try:
            return Document(content.decode(), "", source, url)
        except UnicodeDecodeError:
            return Rejected(source, "invalid UTF-8", num_bytes=len(content), excerpt=url)
    kind = (record.http_headers.get_header("Content-Type") or "") if record.http_headers else ""
    if not kind.lower().startswith(HTML):
        return Rejected(source, "not a web page", num_bytes=len(content), excerpt=f"{url} {kind}".strip())
    text = _main_text(content)
    if not text:
        return Rejected(source, "no text in page", num_bytes=len(content), excerpt=url)
    return Document(text, "", source, url)


def _main_text(page: bytes) -> str:
    try:
        import trafilatura
    except ImportError:
        raise _missing("trafilatura") from None
    return trafilatura.extract(page, include_comments=False, include_tables=False) or ""


def _missing(package: str) -> SeallmError:
    return SeallmError(f"reading WARC files needs {package}: pip install 'seallm_jax[warc]'")
