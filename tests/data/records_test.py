import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.records import read_records

ROWS = [{"instruction": "ถาม", "output": "ตอบ"}, {"instruction": "b", "output": "c"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


def write(directory, name):
    path = directory / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(LINES.encode()))
    elif name.endswith(".csv"):
        path.write_text("\ufeffinstruction,output\nถาม,ตอบ\nb,c\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(ROWS) if name == "array.json" else LINES + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["array.json", "lines.json", "a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_file_types(tmp_path, name):
    records = list(read_records(write(tmp_path, name)))
    assert [record.value for record in records] == ROWS
    assert [record.position for record in records] == [f"{name}:1", f"{name}:2"]


def test_a_directory_is_read_in_the_order_of_names(tmp_path):
    for name in ("b.jsonl", "a.csv"):
        write(tmp_path, name)
    (tmp_path / "README.md").write_text("not data")
    assert [record.position for record in read_records(tmp_path)] == ["a.csv:1", "a.csv:2", "b.jsonl:1", "b.jsonl:2"]


def test_damaged_lines_are_records_without_a_value(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"instruction": "a"}\n{"cut": \n"text"\n\xff\xfe\n')
    assert [record.value for record in read_records(path)] == [{"instruction": "a"}, None, None, None]


def test_dataset_info_of_llama_factory_is_read_unchanged(tmp_path):
    write(tmp_path, "a.jsonl")
    write(tmp_path, "pairs.json")
    write(tmp_path, "unlisted.jsonl")
    info = {
        "identity": {"file_name": "a.jsonl", "columns": {"prompt": "instruction", "response": "output"}},
        "pairs": {"file_name": "pairs.json", "ranking": True, "formatting": "sharegpt"},
        "elsewhere": {"hf_hub_url": "someone/something"},
        "not here": {"file_name": "gone.json"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    found = list(read_records(tmp_path))
    assert [record.position for record in found] == ["a.jsonl:1", "a.jsonl:2"]
    assert found[0].layout == info["identity"]
    assert [record.position for record in read_records(tmp_path, ranking=True)] == ["pairs.json:1", "pairs.json:2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "gone", "does not exist"),
        (lambda path: path, "holds no file of the types"),
        (lambda path: (path / "a.xlsx").write_text("x") and path / "a.xlsx", "no known type"),
        (lambda path: (path / "a.parquet").write_text("x") and path / "a.parquet", "a.parquet cannot be read"),
        (lambda path: (path / "a.jsonl.gz").write_text("x") and path / "a.jsonl.gz", "a.jsonl.gz cannot be read"),
        (lambda path: (path / "dataset_info.json").write_text("{}") and path, "lists no local file of instructions"),
        (lambda path: (path / "dataset_info.json").write_text("[]") and path, "must map names to entries"),
    ],
)
def test_errors(tmp_path, make, message):
    with pytest.raises(SeallmError, match=message) as error:
        list(read_records(make(tmp_path)))
    assert "\n" not in str(error.value)
