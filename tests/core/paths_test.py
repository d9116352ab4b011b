"""Nothing half-written: atomic files and directories, JSON errors that name file and line."""

import errno
import pathlib

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, atomic_file, file_digest, read_json, read_jsonl, write_jsonl


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(SeallmError, match="a.txt.*No space left"), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk(tmp_path):
    """/dev/full is a device that answers every write as a full disk does."""
    with pytest.raises(SeallmError, match="No space left"), atomic_file(tmp_path / "b") as temporary:
        temporary.symlink_to("/dev/full")
        with open(temporary, "w") as file:
            file.write("x" * 100_000)
    assert not list(tmp_path.iterdir())


def test_failure_keeps_the_old_directory(tmp_path):
    path = tmp_path / "out"
    with atomic_directory(path) as temporary:
        (temporary / "one").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_directory(path) as temporary:
        (temporary / "two").write_text("2")
        raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["one"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json_errors_name_file_and_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \xff}\n')
    with pytest.raises(SeallmError, match=r"x\.jsonl:2: not a valid UTF-8 JSON line"):
        list(read_jsonl(path))
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(SeallmError, match="y.json is not valid JSON"):
        read_json(tmp_path / "y.json")
    with pytest.raises(SeallmError, match="does not exist"):
        read_json(tmp_path / "z.json")


def test_jsonl_round_trip_and_digest(tmp_path):
    records = [{"text": "ภาษาไทย\nบรรทัด"}, {"text": "ပါ"}]
    path = tmp_path / "deep" / "x.jsonl"
    assert write_jsonl(path, records) == 2
    assert list(read_jsonl(path)) == records
    before = file_digest(tmp_path)
    (tmp_path / "other").write_text("")
    assert file_digest(tmp_path) != before
    assert isinstance(path, pathlib.Path)
