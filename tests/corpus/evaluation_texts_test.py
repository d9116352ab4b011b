"""Strings of evaluation files."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.evaluation_texts import EvaluationText, read_evaluation_texts

RECORD = {"question": "Apa ibu kota?", "choices": ["Jakarta", "Bandung"], "answer": 0, "meta": {"note": "mudah"}}
STRINGS = ["Apa ibu kota?", "Jakarta", "Bandung", "mudah"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_every_string_of_every_format(tmp_path, name):
    path = tmp_path / name
    if name == "a.json":
        path.write_text(json.dumps([RECORD, RECORD]))
    elif name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([RECORD, RECORD]), path)
    else:
        with gzip.open(path, "wt") if name.endswith(".gz") else open(path, "w") as file:
            file.write(json.dumps(RECORD) + "\n" + json.dumps(RECORD) + "\n")
    expected = [EvaluationText(text, f"{name}:{number}") for number in (1, 2) for text in STRINGS]
    assert list(read_evaluation_texts([path])) == list(read_evaluation_texts([tmp_path])) == expected


def test_lines_are_numbered_as_in_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("satu\n\ndua\n")
    (tmp_path / "b.jsonl").write_text('\n{"q": "tiga"}\n')
    found = [(text.text.strip(), text.source) for text in read_evaluation_texts([tmp_path])]
    assert found == [("satu", "a.txt:1"), ("dua", "a.txt:3"), ("tiga", "b.jsonl:2")]


def test_sample():
    assert len(list(read_evaluation_texts([sample_path("choices"), sample_path("parallel")]))) > 400


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"q": "x"}\n{"q": \n', r"a\.jsonl is damaged after record 1"),
        ("a.jsonl", b"\xff\xfe\n", r"a\.jsonl is damaged after record 0"),
        ("a.jsonl.gz", gzip.compress(b'{"q": "x"}\n' * 500, mtime=0)[:40], r"a\.jsonl\.gz is damaged"),
        ("a.parquet", b"PAR1 no", r"a\.parquet is damaged"),
        ("a.json", b"[1, 2]", r"a\.json holds no text"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SeallmError, match=message) as error:
        list(read_evaluation_texts([tmp_path / name]))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(SeallmError, match=r"has no \.jsonl"):
            list(read_evaluation_texts([path]))
