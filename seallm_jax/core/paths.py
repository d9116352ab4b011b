"""The run directory, digests of files, and writing that never leaves half a file behind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from seallm_jax.core.errors import SeallmError

RUN_STAGE_DIRECTORIES = {
    "corpus": "corpus",
    "base": "base",
    "vocab": "tokenizer",
    "pack": "tokens",
    "mixture": "mixture",
    "pretrain": "pretrain",
    "hybrid": "hybrid",
    "sft": "sft",
    "preference": "preference",
    "evaluate": "evaluation",
    "export": "export",
    "generate": "generation",
    "report": "report",
}


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """`<workdir>` and the directory of each stage in it."""

    root: pathlib.Path

    def stage(self, name: str) -> pathlib.Path:
        """Directory of a stage (not created)."""
        return self.root / RUN_STAGE_DIRECTORIES[name]


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same directory and renames it to `path` on success.

    A full disk or any other failure removes the temporary file, leaves what was there before, and raises SeallmError
    for operating-system errors.
    """
    path = pathlib.Path(path)
    temporary = _beside(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SeallmError(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary sibling directory and swaps it in for `path` on success; removes it on failure."""
    path = pathlib.Path(path)
    temporary = _beside(path, "tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            old = _beside(path, "old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SeallmError(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    """A hidden name of its own, also among processes of other machines that write the same path."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.{suffix}")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as readable UTF-8 JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file. Raises SeallmError when it is missing or damaged."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeallmError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SeallmError(f"{path} is not valid JSON: {error}") from error


def write_jsonl(path: str | os.PathLike, records) -> int:
    """Writes one JSON object a line, atomically. Returns the number of records."""
    count = 0
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: str | os.PathLike) -> Iterator[dict]:
    """Yields the objects of a JSON-lines file. Raises SeallmError with file and line number for a damaged line."""
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield json.loads(line.decode("utf-8"))
                except (json.JSONDecodeError, UnicodeDecodeError) as error:
                    raise SeallmError(f"{path}:{number}: not a valid UTF-8 JSON line: {error}") from error
    except FileNotFoundError:
        raise SeallmError(f"{path} does not exist") from None


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a directory, as hexadecimal."""
    path = pathlib.Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{child.relative_to(path)}\0{file_digest(child)}\n".encode())
        return digest.hexdigest()
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise SeallmError(f"{path} does not exist") from None
    return digest.hexdigest()


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-like value with sorted keys, as hexadecimal."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()
