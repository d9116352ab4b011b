import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.row import PackedRow, Piece


@st.composite
def pieces(draw):
    made = []
    for _ in range(draw(st.integers(1, 6))):
        n = draw(st.integers(1, 9))
        high = draw(st.sampled_from([100, 0xFFFF, 200_000]))
        ids = np.array(draw(st.lists(st.integers(0, high), min_size=n + 1, max_size=n + 1)), np.int32)
        learned = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array))
        made.append(
            Piece(ids, draw(st.integers(0, 3)), draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 50)), learned)
        )
    return made


def by_hand(made, length, languages):
    """The arrays of a batch, position by position."""
    fields = {
        name: np.zeros(length, np.int32) for name in ("tokens", "targets", "positions", "segment_ids", "language_ids")
    }
    fields["loss_weights"] = np.zeros(length, np.float32)
    place = 0
    for segment, piece in enumerate(made, start=1):
        for position in range(len(piece.ids) - 1):
            fields["tokens"][place] = piece.ids[position]
            fields["targets"][place] = piece.ids[position + 1]
            fields["positions"][place] = piece.offset + position
            fields["segment_ids"][place] = segment
            fields["language_ids"][place] = languages[piece.language]
            fields["loss_weights"][place] = 1.0 if piece.learned is None else float(piece.learned[position])
            place += 1
    return fields


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
    languages = np.array([7, 5, 3, 1], np.int32)
    for length in (row.length, row.length + 5):
        arrays = row.arrays(length, languages)
        for name, expected in by_hand(made, length, languages).items():
            np.testing.assert_array_equal(arrays[name], expected, err_msg=name)
            assert arrays[name].dtype == expected.dtype
    assert row.weighted == int(by_hand(made, row.length, languages)["loss_weights"].sum())


def test_ids_below_65536_take_two_bytes():
    small = PackedRow.of([Piece(np.full(1001, 0xFFFF, np.int32))])
    large = PackedRow.of([Piece(np.full(1001, 0x10000, np.int32))])
    assert len(large.to_bytes()) - len(small.to_bytes()) == 2 * 1001


@pytest.mark.parametrize("place", [1, 10, 40, -1])
def test_a_changed_byte_is_noticed(place):
    data = bytearray(PackedRow.of([Piece(np.arange(20, dtype=np.int32))]).to_bytes())
    data[place] ^= 0xFF
    with pytest.raises(SeallmError, match="pack the source again"):
        PackedRow.from_bytes(bytes(data))
    with pytest.raises(SeallmError, match="cut off"):
        PackedRow.from_bytes(bytes(data[:9]))


def test_a_row_that_is_too_long_says_so():
    row = PackedRow.of([Piece(np.arange(20, dtype=np.int32))])
    with pytest.raises(SeallmError, match="19 positions, more than sequence_length 16"):
        row.arrays(16, np.zeros(1, np.int32))


def test_parts_of_a_piece_share_the_id_at_the_cut():
    piece = Piece(np.arange(10, 16, dtype=np.int32), learned=np.array([0, 1, 0, 1, 1], bool))
    first, second = piece.part(0, 2), piece.part(2, 5)
    assert first.ids.tolist() == [10, 11, 12] and second.ids.tolist() == [12, 13, 14, 15]
    assert first.learned.tolist() == [False, True] and second.learned.tolist() == [False, True, True]
