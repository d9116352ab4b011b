"""Listing and opening inputs, and telling damage from distance."""

import bz2
import gzip
import lzma

import fsspec
import pyarrow
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.input_file import InputFile, find_files, is_damage

CONTENT = b"".join(b'{"text": "line %d"}\n' % number for number in range(20_000))
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_compression_is_read_back(tmp_path, suffix):
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](CONTENT))
    (file,) = find_files(tmp_path)
    assert (file.name, file.format) == (f"a.jsonl{suffix}", "jsonl")
    with file.open() as stream:
        assert b"".join(stream) == CONTENT


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", ["cut", "changed"])
def test_damage_is_never_taken_for_the_end(tmp_path, suffix, kind):
    data = bytearray(COMPRESS[suffix](CONTENT))
    half = len(data) // 2
    if kind == "cut":
        del data[half:]
    else:
        data[half : half + 20] = bytes(255 - byte for byte in data[half : half + 20])
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(data)
    with pytest.raises(Exception) as error, find_files(path)[0].open() as stream:
        for _ in stream:
            pass
    assert is_damage(error.value), repr(error.value)


def test_what_the_operating_system_says_is_no_damage(tmp_path):
    with pytest.raises(OSError) as error, InputFile(str(tmp_path / "gone.jsonl"), "gone.jsonl", "jsonl").open():
        pass
    assert not is_damage(error.value)


def test_names_are_relative_sorted_and_only_of_known_formats(tmp_path):
    for name in ("b/x.jsonl", "a.txt.gz", "c.warc.gz", "d.parquet", "d.parquet.gz", ".hidden/e.jsonl", "f.md", "g.wet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    files = find_files(tmp_path)
    assert [(file.name, file.format) for file in files] == [
        ("a.txt.gz", "text"),
        ("b/x.jsonl", "jsonl"),
        ("c.warc.gz", "warc"),
        ("d.parquet", "parquet"),
        ("g.wet", "warc"),
    ]
    assert all(file.size == 5 and file.version for file in files)


def test_a_bucket_is_read_like_a_directory():
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/km/one.jsonl.gz", gzip.compress(b'{"text": "x"}\n'))
    memory.pipe("/bucket/two.txt", b"y")
    try:
        files = find_files("memory://bucket")
        assert [file.name for file in files] == ["km/one.jsonl.gz", "two.txt"]
        with files[0].open() as stream:
            assert stream.read() == b'{"text": "x"}\n'
        with pytest.raises(SeallmError, match="corpus path memory://nothing has no .jsonl"):
            find_files("memory://nothing")
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/nowhere/at/all", "corpus path /nowhere/at/all does not exist"), ("nonsense://x", "cannot read nonsense://x")],
)
def test_wrong_paths_are_one_line(path, message):
    with pytest.raises(SeallmError, match=message):
        find_files(path)


def test_a_missing_package_for_a_bucket_is_named(monkeypatch):
    def missing(address):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(SeallmError, match=r"pip install 'seallm_jax\[cloud\]'"):
        find_files("gs://bucket/x")
