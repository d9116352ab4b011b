import numpy as np
import pytest
from hypothesis import given, settings
from row_pieces import pieces

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.row import PackedRow, Piece


@given(pieces())
@settings(max_examples=150, deadline=None)
def test_bytes_and_arrays_give_back_the_pieces(made):
    row = PackedRow.from_bytes(PackedRow.of(made).to_bytes())
    assert row.to_bytes() == PackedRow.of(made).to_bytes()
    for got, piece in zip(row.pieces(), made, strict=True):
        np.testing.assert_array_equal(got.ids, piece.ids)
        assert (got.language, got.document, got.offset) == (piece.language, piece.document, piece.offset)
        expected = np.ones(piece.positions, bool) if piece.learned is None else piece.learned
        np.testing.assert_array_equal(got.learned if got.learned is not None else True, expected)
    learned = [np.ones(p.positions, bool) if p.learned is None else p.learned for p in made]
    assert row.weighted == int(np.concatenate(learned).sum())
    assert row.length == sum(p.positions for p in made) == row.positions.sum()
    assert row.documents.tolist() == [p.document for p in made]


def test_ids_take_as_few_bytes_as_hold_the_largest():
    sizes = [
        len(PackedRow.of([Piece(np.full(1001, largest, np.int32))]).to_bytes())
        for largest in (0xFFFF, 0x10000, 0xFFFFFF, 0x1000000)
    ]
    assert [size - sizes[0] for size in sizes] == [0, 1000, 1000, 2000]


@pytest.mark.parametrize("place", [1, 10, 40, -1])
def test_a_changed_byte_is_noticed(place):
    data = bytearray(PackedRow.of([Piece(np.arange(20, dtype=np.int32))]).to_bytes())
    data[place] ^= 0xFF
    with pytest.raises(SeallmError, match="pack the source again"):
        PackedRow.from_bytes(bytes(data))
    with pytest.raises(SeallmError, match="cut off"):
        PackedRow.from_bytes(bytes(data[:9]))


def test_parts_of_a_piece_share_the_id_at_the_cut():
    piece = Piece(np.arange(10, 16, dtype=np.int32), learned=np.array([0, 1, 0, 1, 1], bool))
    first, second = piece.part(0, 2), piece.part(2, 5)
    assert first.ids.tolist() == [10, 11, 12] and second.ids.tolist() == [12, 13, 14, 15]
    assert first.learned.tolist() == [False, True] and second.learned.tolist() == [False, True, True]
