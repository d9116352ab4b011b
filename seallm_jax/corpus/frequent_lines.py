"""Lines that many documents share: menus, cookie notices, footers."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.corpus_config import FrequentLinesConfig
from seallm_jax.core.paths import atomic_file
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.record_file import read_records, record_header
from seallm_jax.corpus.url_key import url_host

REASON = "only frequent lines"
_BLANK_LINES = re.compile("\n{3,}")
_COUNTED = np.dtype([("line", np.uint64), ("documents", np.uint64)])
_LINE = np.dtype(np.uint64)
_PENDING = 1 << 22  # lines that are kept before they are counted together
_LINES_AT_ONCE = 1 << 24  # counted lines in memory while the units are added


class LineCounts:
    """First phase: in how many documents of a unit each line occurs, by hash. Writes 16 bytes a distinct line.

        with LineCounts(directory / "00007.lines", config) as counts:
            for document in documents:
                counts.add(document)

    The file appears when the block ends without an error.
    """

    def __init__(self, path: pathlib.Path, config: FrequentLinesConfig):
        self._path = path
        self._config = config
        self._pending = bytearray()
        self._counted = np.zeros(0, _COUNTED)

    def __enter__(self) -> LineCounts:
        return self

    def add(self, document: Document) -> None:
        """Counts every distinct line of a document once."""
        self._pending += b"".join(set(_line_keys(document, self._config)) - {b""})
        if len(self._pending) >= _PENDING * _LINE.itemsize:
            self._count()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._count()
            with atomic_file(self._path) as temporary, open(temporary, "wb") as file:
                file.write(_header(self._config, "counts"))
                file.write(self._counted.tobytes())

    def _count(self) -> None:
        lines, documents = np.unique(np.frombuffer(bytes(self._pending), _LINE), return_counts=True)
        new = np.empty(len(lines), _COUNTED)
        new["line"], new["documents"] = lines, documents
        self._counted = _add([self._counted, new])
        self._pending.clear()


def find_frequent_lines(paths: Sequence[pathlib.Path], output: pathlib.Path, config: FrequentLinesConfig) -> int:
    """Second phase, once: adds the counts of all units and writes the hashes of the frequent lines to file `output`.

    The units are added range by range of the hashes, so that memory does not grow with the corpus.

    Returns the number of frequent lines.

    Raises:
      SeallmError: a file is damaged or was written under other settings.
    """
    units = [read_records(path, _header(config, "counts"), _COUNTED) for path in paths]
    ranges = -(-sum(map(len, units)) // _LINES_AT_ONCE)
    bounds = [np.uint64((number << 64) // max(ranges, 1)) for number in range(ranges)]
    cuts = [np.append(np.searchsorted(unit["line"], bounds), len(unit)) for unit in units]
    total = 0
    with atomic_file(output) as temporary, open(temporary, "wb") as file:
        file.write(_header(config, "frequent"))
        for number in range(ranges):
            counted = _add([unit[cut[number] : cut[number + 1]] for unit, cut in zip(units, cuts, strict=True)])
            frequent = counted["line"][counted["documents"] > config.maximum_documents]
            file.write(frequent.tobytes())
            total += len(frequent)
    return total


class FrequentLines:
    """Last phase: takes the frequent lines out of documents."""

    def __init__(self, path: pathlib.Path, config: FrequentLinesConfig):
        """`path`: the output of `find_frequent_lines`. Raises SeallmError for a damaged file or other settings."""
        self._config = config
        self._frequent = read_records(path, _header(config, "frequent"), _LINE)

    def clean(self, document: Document) -> Document | Rejected:
        """The document without its frequent lines; the same object when it has none; rejected when no line is left."""
        keys = _line_keys(document, self._config)
        counted = [number for number, key in enumerate(keys) if key]
        hashes = np.frombuffer(b"".join(keys), _LINE)
        places = np.searchsorted(self._frequent, hashes)
        places[places == len(self._frequent)] = 0
        if not len(self._frequent) or not (found := self._frequent[places] == hashes).any():
            return document
        removed = {number for number, frequent in zip(counted, found, strict=True) if frequent}
        lines = (line for number, line in enumerate(document.text.split("\n")) if number not in removed)
        text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
        if not text.strip():
            return document.rejected(REASON)
        return dataclasses.replace(document, text=text)


def _line_keys(document: Document, config: FrequentLinesConfig) -> list[bytes]:
    """Eight bytes for every line that counts, by its text without case and outer space; empty for the others."""
    host = url_host(document.url) if config.scope == "site" else ""
    group = f"{document.language}\0{host}\0".encode()
    keys = []
    for line in document.text.split("\n"):
        line = line.strip().casefold()
        if len(line) < config.minimum_characters:
            keys.append(b"")
            continue
        content = line.encode("utf-8", "surrogatepass")
        keys.append(hashlib.blake2b(content, digest_size=8, key=group[:64]).digest())
    return keys


def _add(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of counts, sorted by line."""
    joined = np.concatenate([np.zeros(0, _COUNTED), *parts])
    order = np.argsort(joined["line"], kind="stable")
    lines = joined["line"][order]
    starts = np.flatnonzero(np.append(True, lines[1:] != lines[:-1])) if len(lines) else np.zeros(0, np.int64)
    total = np.empty(len(starts), _COUNTED)
    total["line"] = lines[starts]
    total["documents"] = np.add.reduceat(joined["documents"][order], starts) if len(starts) else 0
    return total


def _header(config: FrequentLinesConfig, kind: str) -> bytes:
    settings = {"scope": config.scope, "minimum_characters": config.minimum_characters}
    limit = {"maximum_documents": config.maximum_documents} if kind == "frequent" else {}
    return record_header(f"line {kind} 1", settings | limit)
