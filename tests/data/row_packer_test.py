import numpy as np
import pytest

from seallm_jax.data.row import Piece
from seallm_jax.data.row_packer import RowPacker
from seallm_jax.data.shards import ShardReader

T = 64


def finish(packer):
    return packer.finish(kind="text", language="km", tokenizer_digest="t", inputs_digest="i")


def documents_in(directory):
    """document -> its (input, target) pairs, in whatever order the rows hold them."""
    found = {}
    reader = ShardReader(directory)
    for row in reader.read(range(len(reader))):
        assert row.length <= T
        for piece in row.pieces():
            pairs = zip(piece.ids[:-1].tolist(), piece.ids[1:].tolist(), strict=True)
            found.setdefault(piece.document, []).extend(pairs)
    return {document: sorted(pairs) for document, pairs in found.items()}


@pytest.mark.parametrize("may_cut", [False, True])
@pytest.mark.parametrize("pool", [200, 1000, 1 << 20])
def test_no_target_is_lost_whatever_the_size_of_the_pool(tmp_path, may_cut, pool):
    rng = np.random.default_rng(0)
    packer = RowPacker(tmp_path, T, may_cut=may_cut, pool_positions=pool)
    expected = {}
    for document in range(300):
        start, length = document * 1000, int(rng.integers(2, T + 2))
        ids = np.arange(start, start + length, dtype=np.int32)
        packer.add_document([[Piece(ids, document=document)]])
        expected[document] = list(zip(range(start, start + length - 1), range(start + 1, start + length), strict=True))
    index = finish(packer)
    assert documents_in(tmp_path) == expected
    assert index.documents == 300 and index.positions == index.tokens == sum(map(len, expected.values()))
    if pool == 1 << 20:
        assert index.rows == -(-index.positions // T) or index.fill > 0.93 and not may_cut


def test_long_sources_in_small_pools_are_as_full_as_in_one(tmp_path):
    lengths = np.minimum(np.random.default_rng(1).lognormal(2.5, 1, 5000).astype(int) + 1, T)
    for pool in (2000, 1 << 20):
        packer = RowPacker(tmp_path / str(pool), T, pool_positions=pool)
        for document, length in enumerate(lengths):
            packer.add_document([[Piece(np.zeros(length + 1, np.int32), document=document)]])
        assert finish(packer).fill > 0.99


def test_items_stay_together_and_limits_hold(tmp_path):
    packer = RowPacker(tmp_path, T, maximum_items=2)
    for document in range(20):
        pair = [Piece(np.zeros(6, np.int32), document=document), Piece(np.ones(8, np.int32), document=document)]
        packer.add_document([pair])
    packer.add_document([])
    packer.drop("no reason")
    index = finish(packer)
    assert (index.rows, index.max_segments, index.documents) == (10, 4, 20)
    assert index.dropped == {"nothing to predict": 1, "no reason": 1}
    for row in ShardReader(tmp_path).read(range(10)):
        assert [piece.ids[0] for piece in row.pieces()] == [0, 1, 0, 1]
        assert row.documents[0] == row.documents[1] and row.documents[2] == row.documents[3]


def test_a_source_of_nothing_has_an_index_without_rows(tmp_path):
    assert finish(RowPacker(tmp_path, T)).rows == 0
    assert len(ShardReader(tmp_path)) == 0
