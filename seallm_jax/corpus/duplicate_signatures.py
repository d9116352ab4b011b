"""The first phase of finding duplicates: what each document looks like, in a few hundred bytes."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import types

import numpy as np

from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.paths import atomic_file
from seallm_jax.corpus.document import Document
from seallm_jax.corpus.minhash import MinHash
from seallm_jax.corpus.record_file import read_records, record_header
from seallm_jax.corpus.url_key import url_key

_BATCH_CHARACTERS = 1 << 14  # so that a batch's arrays stay in the processor's cache


class DuplicateSignatures:
    """Writes the signatures of one unit's documents, in their order.

    A unit is any run of consecutive documents, such as those of one input file. `cluster_duplicates` takes the units in
    corpus order; the order of all documents alone decides which of them stay, not how they are cut into units.

        with DuplicateSignatures(directory / "00007.signatures", config) as signatures:
            for document in documents:
                signatures.add(document)

    The file appears when the block ends without an error.
    """

    def __init__(self, path: pathlib.Path, config: DuplicatesConfig):
        self._path = path
        self._config = config
        self._minhash = MinHash(num_hashes=config.num_hashes, ngram=config.ngram) if config.near else None
        self._batch: list[tuple[str, str]] = []  # (folded text, address)
        self._characters = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DuplicateSignatures:
        temporary = self._stack.enter_context(atomic_file(self._path))
        self._file = self._stack.enter_context(open(temporary, "wb"))
        self._file.write(_header(self._config))
        return self

    def add(self, document: Document) -> None:
        """Takes the next document. Memory stays bounded: full batches go to the file."""
        folded = fold(document.text)
        self._batch.append((folded, document.url))
        self._characters += len(folded)
        if self._characters >= _BATCH_CHARACTERS:
            self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is None:
            self._write()
        self._stack.__exit__(kind, error, trace)

    def _write(self) -> None:
        texts = [text for text, _ in self._batch]
        records = np.zeros(len(texts), record_type(self._config))
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        digests = b"".join(hashlib.blake2b(content, digest_size=16).digest() for content in encoded)
        records["digest"] = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        records["url"] = [_url_digest(url) for _, url in self._batch]
        records["num_bytes"] = [len(content) for content in encoded]
        if self._minhash and texts:
            records["signature"] = self._minhash.signatures(texts)
        self._file.write(records.tobytes())
        self._batch.clear()
        self._characters = 0


def fold(text: str) -> str:
    """The text without differences of case and white space: two documents with equal ones are exact duplicates."""
    return " ".join(text.split()).casefold()


def record_type(config: DuplicatesConfig) -> np.dtype:
    """What the file holds for each document."""
    minima = config.num_hashes if config.near else 0
    fields = [("digest", np.uint64, (2,)), ("url", np.uint64), ("num_bytes", np.uint64)]
    return np.dtype([*fields, ("signature", np.uint16, (minima,))])


def read_signatures(path: pathlib.Path, config: DuplicatesConfig) -> np.ndarray:
    """The records of a signature file, mapped from disk.

    Raises:
      SeallmError: the file is missing or damaged, or was written under other settings.
    """
    return read_records(path, _header(config), record_type(config))


def _header(config: DuplicatesConfig) -> bytes:
    settings = {"near": config.near, "ngram": config.ngram, "num_hashes": config.num_hashes}
    return record_header("duplicate signatures 1", settings)


def _url_digest(url: str) -> int:
    """64 bits of a hash of the page's address; 0 for none."""
    key = url_key(url)
    return int.from_bytes(hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest(), "little") if key else 0
