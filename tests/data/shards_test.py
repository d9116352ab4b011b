import json
import threading

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import INDEX_FILE, ROWS_FILE, ShardReader, ShardWriter, open_shards

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
    rows, index = tmp_path / ROWS_FILE, tmp_path / INDEX_FILE
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
        index.write_text(json.dumps({key: value for key, value in record.items() if key != "rows"}))
    else:
        index.write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(SeallmError) as error:
        ShardReader(tmp_path).verify()
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_shard_with_another_number_of_rows_than_its_index_is_refused(tmp_path):
    write_shard(tmp_path)
    index = tmp_path / INDEX_FILE
    index.write_text(json.dumps(json.loads(index.read_text()) | {"rows": 19}))
    with pytest.raises(SeallmError, match="holds 20 rows, its index says 19"):
        ShardReader(tmp_path)[0]


def test_open_shards_lists_all_that_have_rows(tmp_path):
    write_shard(tmp_path / "text" / "km")
    write_shard(tmp_path / "instructions" / "vi", kind="instructions", language="vi")
    write_shard(tmp_path / "text" / "lo", rows=0, language="lo")
    assert [reader.index.name for reader in open_shards(tmp_path)] == ["instructions/vi", "text/km"]
