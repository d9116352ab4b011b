import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.shard_index import INDEX_FILE, ShardIndex, ShardPart, finish_shard


def part(rows, squares=100, **more):
    return ShardPart(rows, rows, 30 * rows, 20 * rows, squares, 7, 2, f"digest of {rows}", **more)


def index_of(directory, *parts, **more):
    facts = {"kind": "text", "language": "low", "languages": ("km", "lo"), "sequence_length": 32}
    facts |= {"tokenizer_digest": "t", "inputs_digest": "i"} | more
    return finish_shard(directory, parts, **facts)


def test_what_is_written_is_read_and_the_sums_are_those_of_the_parts(tmp_path):
    index = index_of(tmp_path, part(3, dropped={"a": 1}), part(4, truncated=2, dropped={"a": 2, "b": 5}))
    assert ShardIndex.read(tmp_path) == index and index.name == "text/low"
    assert (index.rows, index.documents, index.positions, index.tokens, index.squares) == (7, 7, 210, 140, 200)
    assert (index.bytes, index.max_segments, index.truncated, index.dropped) == (14, 2, 2, {"a": 3, "b": 5})
    assert index.fill == 210 / (7 * 32)
    assert json.loads((tmp_path / INDEX_FILE).read_text())["rows"] == 7


def test_the_digest_tells_rows_their_order_and_what_documents_see(tmp_path):
    parts = (part(3), part(4))
    digests = [
        index_of(tmp_path, *parts).digest,
        index_of(tmp_path, *parts[::-1]).digest,
        index_of(tmp_path, *parts, mode="open").digest,
    ]
    assert len(set(digests)) == 3
    assert index_of(tmp_path, *parts, inputs_digest="another").digest == digests[0]


def test_a_document_is_found_again_in_its_file(tmp_path):
    index = index_of(
        tmp_path, part(3), inputs=(("train/km.jsonl", 2), ("train/km-00001.jsonl", 0), ("train/lo.jsonl", 3))
    )
    places = [("train/km.jsonl", 1), ("train/km.jsonl", 2), *(("train/lo.jsonl", line) for line in (1, 2, 3))]
    assert [ShardIndex.read(tmp_path).place(document) for document in range(5)] == places
    with pytest.raises(SeallmError, match="does not tell where document 5 comes from"):
        index.place(5)


def test_an_index_of_an_earlier_version_or_with_a_damaged_part_is_refused(tmp_path):
    index_of(tmp_path, part(3))
    path = tmp_path / INDEX_FILE
    record = json.loads(path.read_text())
    for damage, message in (
        ({"version": 1}, "has version 1, not 2; pack the source again"),
        ({"parts": [{"rows": 3}]}, "is damaged"),
        ({"parts": None}, "is damaged"),
        ({"inputs": [["a"]]}, "is damaged"),
    ):
        path.write_text(json.dumps(record | damage))
        with pytest.raises(SeallmError, match=message):
            ShardIndex.read(tmp_path)
