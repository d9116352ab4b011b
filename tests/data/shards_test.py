import json
import threading

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shard_index import INDEX_FILE, finish_shard
from seallm_jax.data.shards import ShardReader, ShardWriter, open_shards, rows_file

T = 32


def write_shard(directory, rows=20, *, kind="text", language="km", tokenizer="a" * 64, seed=0):
    rng = np.random.default_rng(seed)
    with ShardWriter(directory) as writer:
        for number in range(rows):
            ids = rng.integers(0, 500, (2, 11)).astype(np.int32)
            assert writer.write(PackedRow.of([Piece(part, document=number) for part in ids]))
        return writer.finish(
            kind=kind,
            language=language,
            languages=(language,),
            sequence_length=T,
            tokenizer_digest=tokenizer,
            inputs_digest="inputs",
            documents=2 * rows,
        )


def test_what_is_written_is_read(tmp_path):
    index = write_shard(tmp_path / "text" / "km")
    assert (index.rows, index.documents, index.positions, index.tokens) == (20, 40, 400, 400)
    assert index.squares == 40 * 10**2
    assert index.max_segments == 2 and index.fill == 20 / 32 and index.name == "text/km"
    reader = ShardReader(tmp_path / "text" / "km", tokenizer_digest="a" * 64)
    assert reader.index == index and len(reader) == 20
    assert [row.documents[0] for row in reader.read([3, 0, 19])] == [3, 0, 19]
    reader.verify()
    assert reader.source().name == "text/km" and reader.source().rows == 20
    assert reader.language_ids(Languages(("en", "km"))).tolist() == [1]


def test_the_digest_depends_on_the_rows_only(tmp_path):
    digests = [write_shard(tmp_path / name, seed=seed).digest for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert digests[0] == digests[1] != digests[2]


def test_many_threads_read_the_same_rows(tmp_path):
    write_shard(tmp_path, rows=50)
    reader = ShardReader(tmp_path)
    expected = [reader[i].to_bytes() for i in range(50)]
    wrong = []

    def read():
        for i in np.random.default_rng(threading.get_ident() % 1000).permutation(50):
            if reader[int(i)].to_bytes() != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_row_without_a_target_to_learn_is_never_written(tmp_path):
    with ShardWriter(tmp_path) as writer:
        assert not writer.write(PackedRow.of([Piece(np.arange(5, dtype=np.int32), learned=np.zeros(4, bool))]))
        assert writer.rows == 0


def test_an_interrupted_shard_does_not_exist(tmp_path):
    write_shard(tmp_path / "text" / "km")
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "text" / "km"):
        raise RuntimeError("interrupted")
    assert not (tmp_path / "text" / "km" / INDEX_FILE).exists()
    with pytest.raises(SeallmError, match="no packed rows below"):
        open_shards(tmp_path)


def test_another_tokenizer_is_refused(tmp_path):
    write_shard(tmp_path)
    with pytest.raises(
        SeallmError, match="made with tokenizer aaaaaaaaaaaa, not with bbbbbbbbbbbb; pack the source again"
    ):
        ShardReader(tmp_path, tokenizer_digest="b" * 64)


@pytest.mark.parametrize(
    "damage", ["cut", "flip", "missing rows", "missing index", "index json", "index field", "version"]
)
def test_damage_is_named_in_one_line(tmp_path, damage):
    write_shard(tmp_path)
    rows, index = rows_file(tmp_path), tmp_path / INDEX_FILE
    data = rows.read_bytes()
    record = json.loads(index.read_text())
    if damage == "cut":
        rows.write_bytes(data[:-50])
    elif damage == "flip":
        middle = data.index(ShardReader(tmp_path)[10].to_bytes()) + 30
        rows.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "missing rows":
        rows.unlink()
    elif damage == "missing index":
        index.unlink()
    elif damage == "index json":
        index.write_text(index.read_text()[:-30])
    elif damage == "index field":
        index.write_text(json.dumps({key: value for key, value in record.items() if key != "parts"}))
    else:
        index.write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(SeallmError) as error:
        ShardReader(tmp_path).verify()
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def write_parts(directory, sizes=(5, 0, 9)):
    """A shard of several files, whose row i holds document i."""
    parts, first = [], 0
    for number, size in enumerate(sizes):
        writer = ShardWriter(directory, number)
        for document in range(first, first + size):
            writer.write(PackedRow.of([Piece(np.full(document + 2, document, np.int32), document=document)]))
        parts.append(writer.finish_part(documents=size, truncated=1, dropped={"short": number}))
        first += size
    facts = {"kind": "text", "language": "km", "languages": ("km",), "tokenizer_digest": "", "inputs_digest": ""}
    return finish_shard(directory, parts, sequence_length=T, **facts)


def test_the_parts_of_a_shard_are_read_as_one(tmp_path):
    index = write_parts(tmp_path)
    reader = ShardReader(tmp_path)
    assert reader.index == index and len(reader) == index.documents == 14 and index.max_segments == 1
    assert [row.documents[0] for row in reader.read([13, 0, 5, 4])] == [13, 0, 5, 4]
    assert (index.positions, index.truncated, index.dropped) == (sum(range(1, 15)), 3, {"short": 3})
    reader.verify()
    with pytest.raises(IndexError, match="row 14 of 14 rows"):
        reader[14]
    assert index.digest != write_parts(tmp_path / "other", (4, 1, 9)).digest


def test_damage_in_one_part_names_its_file_and_row(tmp_path):
    write_parts(tmp_path)
    path = rows_file(tmp_path, 2)
    data = bytearray(path.read_bytes())
    data[data.index(ShardReader(tmp_path)[8].to_bytes()) + 30] ^= 1
    path.write_bytes(data)
    reader = ShardReader(tmp_path)
    for _ in range(2):  # no row takes its place, however often it is asked for
        with pytest.raises(SeallmError, match=r"rows-00002.array_record, row 3: .*pack the source again"):
            reader.read([0, 8])
    assert reader[9].documents[0] == 9
    path.write_bytes(data[:-1])
    with pytest.raises(SeallmError, match=r"rows-00002.array_record has \d+ bytes, its index says \d+"):
        ShardReader(tmp_path)


def test_a_shard_with_another_number_of_rows_than_its_index_is_refused(tmp_path):
    write_shard(tmp_path)
    index = tmp_path / INDEX_FILE
    record = json.loads(index.read_text())
    record["parts"][0]["rows"] = 19
    index.write_text(json.dumps(record))
    with pytest.raises(SeallmError, match="holds 20 rows, its index says 19"):
        ShardReader(tmp_path)[0]


def test_open_shards_lists_all_that_have_rows(tmp_path):
    write_shard(tmp_path / "text" / "km")
    write_shard(tmp_path / "instructions" / "vi", kind="instructions", language="vi")
    write_shard(tmp_path / "text" / "lo", rows=0, language="lo")
    assert [reader.index.name for reader in open_shards(tmp_path)] == ["instructions/vi", "text/km"]
