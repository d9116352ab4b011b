"""Parts of a source of running text: slices of its files, the same however many processes pack them."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.text_source import TextSource

PART_BYTES = 1 << 28  # of JSON lines, about
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Slice:
    """The lines of a file whose first byte lies in start .. stop - 1.

    Attributes:
      path: the file.
      start, stop: bytes.
      line: number of the first of its lines in the file, from 0.
      lines: how many they are.
      document: number of the first of its lines in the source.
    """

    path: pathlib.Path
    start: int
    stop: int
    line: int
    lines: int
    document: int


@dataclasses.dataclass(frozen=True)
class TextPart:
    """What becomes one file of rows.

    Attributes:
      number: which part of the source.
      slices: language index -> slices, in order.
    """

    number: int
    slices: tuple[tuple[Slice, ...], ...]

    @property
    def lines(self) -> int:
        """Number of lines."""
        return sum(piece.lines for group in self.slices for piece in group)

    @property
    def bytes(self) -> int:
        """Bytes of the slices."""
        return sum(piece.stop - piece.start for group in self.slices for piece in group)


class NumberedText(NamedTuple):
    """A document to pack: its number in the source, the index of its language, the text and its quality."""

    document: int
    language: int
    text: str
    quality: float | None


class TextPlan(NamedTuple):
    """The parts of a source, its (file, lines) in the order of the documents, and a digest of their contents."""

    parts: tuple[TextPart, ...]
    inputs: tuple[tuple[str, int], ...]
    digests: tuple[str, ...]


def plan_parts(source: TextSource, *, part_bytes: int = PART_BYTES) -> TextPlan:
    """Divides the text of every language of a source into as many equal shares as there are parts.

    Reads all files once, for their digests and the numbers of their lines. A document's number is that of its line,
    counted over all files of the source.

    Raises:
      SeallmError: a file cannot be read.
    """
    files = [(language, path) for language, group in enumerate(source.files.values()) for path in group]
    sizes = [_size(path) for _, path in files]
    count = max(1, -(-sum(sizes) // part_bytes))
    slices: list[list[list[Slice]]] = [[[] for _ in source.files] for _ in range(count)]
    inputs, digests = [], []
    document = 0
    for language in range(len(source.files)):
        own = [(path, size) for (index, path), size in zip(files, sizes, strict=True) if index == language]
        total = sum(size for _, size in own)
        bounds = [total * part // count for part in range(count + 1)]
        first = 0
        for path, size in own:
            inside = [bound - first for bound in bounds if 0 < bound - first < size]
            cuts = sorted({0, *inside, size})
            digest, lines = _scan(path, cuts)
            for start, stop, line, end in zip(cuts[:-1], cuts[1:], lines[:-1], lines[1:], strict=True):
                part = min(bisect.bisect_right(bounds, first + start) - 1, count - 1)
                slices[part][language].append(Slice(path, start, stop, line, end - line, document + line))
            inputs.append((f"{path.parent.name}/{path.name}", lines[-1]))
            digests.append(digest)
            document += lines[-1]
            first += size
    parts = tuple(TextPart(number, tuple(map(tuple, groups))) for number, groups in enumerate(slices))
    return TextPlan(parts, tuple(inputs), tuple(digests))


def read_part(part: TextPart) -> Iterator[NumberedText]:
    """The documents of a part; where it has several languages, each as far along as the others in bytes.

    Raises:
      SeallmError: a line that is no record with text, or a file that has gone or changed.
    """
    readers = [_read_slices(group, language) for language, group in enumerate(part.slices)]
    sizes = [max(1, sum(piece.stop - piece.start for piece in group)) for group in part.slices]
    done = [0] * len(readers)
    active = list(range(len(readers)))
    while active:
        language = min(active, key=lambda index: done[index] / sizes[index])
        try:
            length, document = next(readers[language])
        except StopIteration:
            active.remove(language)
            continue
        done[language] += length
        yield document


def _read_slices(slices: Sequence[Slice], language: int) -> Iterator[tuple[int, NumberedText]]:
    """(bytes of the line, document) for each line that is not empty."""
    for piece in slices:
        count = 0
        try:
            with open(piece.path, "rb") as file:
                file.seek(max(piece.start - 1, 0))
                place = file.tell() + (len(file.readline()) if piece.start else 0)
                while place < piece.stop and (line := file.readline()):
                    place += len(line)
                    count += 1
                    if line.strip():
                        record = _parse(line, piece, count)
                        quality = record.get("quality")
                        yield len(line), NumberedText(piece.document + count - 1, language, record["text"], quality)
        except OSError as error:
            raise _unreadable(piece.path, error) from error
        if count != piece.lines:
            raise SeallmError(f"{piece.path} has changed while it was packed; give the same command again")


def _parse(line: bytes, piece: Slice, count: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise SeallmError(f"{piece.path}:{piece.line + count}: not a valid UTF-8 JSON line: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise SeallmError(f"record {piece.line + count} of {piece.path} has no text; run the corpus stage again")
    return record


def _scan(path: pathlib.Path, cuts: Sequence[int]) -> tuple[str, list[int]]:
    """(SHA-256 of a file, for each of `cuts` the number of lines that begin before it)."""
    digest = hashlib.sha256()
    newlines, found = 0, [0]
    try:
        with open(path, "rb") as file:
            for start, stop in itertools.pairwise(cuts):
                while (left := stop - file.tell()) and (block := file.read(min(_BLOCK, left))):
                    digest.update(block)
                    newlines += block.count(b"\n")
                # A line that begins at `stop` itself is not before it.
                ends = bool(newlines) and block.endswith(b"\n") if stop > start else False
                found.append(newlines + (0 if ends else 1) if stop else 0)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest(), found


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: OSError) -> SeallmError:
    if isinstance(error, FileNotFoundError):
        return SeallmError(f"{path} does not exist; run the corpus stage again, then this command continues")
    return SeallmError(f"{path} cannot be read: {error.strerror or error}; give the same command again")
