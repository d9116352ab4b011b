"""What the corpus is read from: files here or in a bucket, and shards of named data sets."""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import lzma
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import resolve_path

FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".txt": "text", ".warc": "warc", ".wet": "warc"}
VERSIONS = ("etag", "ETag", "blob_id", "mtime", "LastModified")  # how file systems call it
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file, or one shard of a named data set: what one task reads from start to end.

    Attributes:
      address: path or URL of the file, or name of the data set.
      name: how records call it in `source`.
      format: jsonl, parquet, text, warc, tfds or datasets.
      size: bytes of a file, records of a shard; 0 where it is not known.
      version: changes when the content does: time of modification or entity tag.
      shard: number of the shard.
      num_shards: into how many the data set is cut.
    """

    address: str
    name: str
    format: str
    size: int = 0
    version: str = ""
    shard: int = 0
    num_shards: int = 1

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The decompressed bytes. Raises OSError, and EOFError and others (`is_damage`) where they are damaged."""
        file_system, path = _file_system(self.address)
        with file_system.open(path, "rb") as raw, _decompressed(raw, self.address) as stream:
            yield stream


def find_files(path: str | pathlib.Path) -> list[InputFile]:
    """The readable files at or below `path`, in sorted order, or the shards of the data set it names.

    Args:
      path: a file or directory, local or with a protocol that fsspec knows (gs://, s3://, hf://datasets/...),
        `tfds://name[/config][:split]` or `datasets://name[@config][:split]`; empty for the embedded sample.

    Raises:
      SeallmError: there is no such path or no readable file in it, or the package for its protocol is missing.
    """
    from seallm_jax.corpus import reader_datasets, reader_tfds

    address = str(path)
    if address.startswith("tfds://"):
        return reader_tfds.find_shards(address)
    if address.startswith("datasets://"):
        return reader_datasets.find_shards(address)
    if "://" not in address:
        address = str(resolve_path(address, "corpus"))
    return _find_files(address)


def is_damage(error: BaseException) -> bool:
    """Whether reading failed because of what the file holds, and not because it could not be reached."""
    import zlib

    if isinstance(error, OSError):  # decompressors raise it without a number, operating systems with one
        return error.errno is None
    return isinstance(error, EOFError | zlib.error | lzma.LZMAError)


def _find_files(address: str) -> list[InputFile]:
    file_system, root = _file_system(address)
    try:
        found = file_system.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:
        raise SeallmError(f"cannot list {address}: {type(error).__name__}: {error}") from error
    if not found:
        raise SeallmError(f"corpus path {address} has no {_described()} file")
    local = "://" not in address
    prefix = root.rstrip("/") + "/"
    files = []
    for path, info in sorted(found.items()):
        name = path.removeprefix(prefix) if path != root else path.rpartition("/")[2]
        hidden = any(part.startswith(".") for part in name.split("/"))
        if (format := _format(name)) is None or hidden:
            continue
        version = next((str(info[key]) for key in VERSIONS if info.get(key)), "")
        full = path if local else file_system.unstrip_protocol(path)
        files.append(InputFile(full, name, format, size=info.get("size") or 0, version=version))
    if not files:
        raise SeallmError(f"corpus path {address} has no {_described()} file")
    return files


def _format(name: str) -> str | None:
    stem = name.lower()
    for suffix in COMPRESSIONS:
        stem = stem.removesuffix(suffix)
    found = next((format for suffix, format in FORMATS.items() if stem.endswith(suffix)), None)
    return None if found == "parquet" and stem != name.lower() else found


def _described() -> str:
    return f"{', '.join(FORMATS)} (also {', '.join(COMPRESSIONS)})"


def _file_system(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise SeallmError(
            f"reading {address} needs another package: pip install 'seallm_jax[cloud]' ({error})"
        ) from error
    except ValueError as error:
        raise SeallmError(f"cannot read {address}: {error}") from error


@contextlib.contextmanager
def _decompressed(raw: BinaryIO, address: str) -> Iterator[BinaryIO]:
    openers: dict[str, Callable[[Any], Any]] = {
        ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
        ".xz": lzma.LZMAFile,
        ".bz2": bz2.BZ2File,
        ".zst": _zstd_stream,
    }
    opener = next((opener for suffix, opener in openers.items() if address.lower().endswith(suffix)), None)
    if opener is None:
        yield raw
        return
    with opener(raw) as stream:
        yield stream


def _zstd_stream(raw: BinaryIO) -> BinaryIO:
    import io

    import pyarrow

    # Arrow's, because zstandard's reader takes a file that ends in the middle of a frame for a whole one
    compressed = pyarrow.PythonFile(raw, mode="r")
    return io.BufferedReader(pyarrow.CompressedInputStream(compressed, "zstd"), buffer_size=1 << 16)  # type: ignore[arg-type]
