import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_pieces import pieces

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.row_arrays import row_arrays

MODES = ("intra_document", "open", "anchor")


ROWS = st.lists(
    st.tuples(st.just([]) | pieces(), st.permutations([7, 5, 3, 1]), st.sampled_from(MODES)), min_size=1, max_size=4
)


def by_hand(made, length, languages, mode):
    """The arrays of a row, position by position."""
    names = ("tokens", "targets", "positions", "segment_ids", "language_ids")
    fields = {name: np.zeros(length, np.int32) for name in names} | {"loss_weights": np.zeros(length, np.float32)}
    place = 0
    for segment, piece in enumerate(made, start=1):
        for position in range(len(piece.ids) - 1):
            fields["tokens"][place] = piece.ids[position]
            fields["targets"][place] = piece.ids[position + 1]
            fields["positions"][place] = piece.offset + position if mode == "intra_document" else place
            fields["segment_ids"][place] = 1 if mode == "open" else segment
            fields["language_ids"][place] = languages[piece.language]
            fields["loss_weights"][place] = 1.0 if piece.learned is None else float(piece.learned[position])
            place += 1
    return fields


@given(ROWS, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_rows_of_any_kind_become_what_they_are_position_by_position(rows, room):
    packed = [PackedRow.from_bytes(PackedRow.of(made).to_bytes()) if made else PackedRow.empty() for made, _, _ in rows]
    length = max(1, *(row.length for row in packed)) + room
    languages = [np.array(codes, np.int32) for _, codes, _ in rows]
    arrays = row_arrays(packed, length, languages, [mode for _, _, mode in rows])
    for number, (made, codes, mode) in enumerate(rows):
        for name, expected in by_hand(made, length, codes, mode).items():
            np.testing.assert_array_equal(arrays[name][number], expected, err_msg=f"{name} of row {number}")
            assert arrays[name].dtype == expected.dtype and arrays[name].shape == (len(rows), length)


def test_a_row_that_is_too_long_says_so():
    row = PackedRow.of([Piece(np.arange(20, dtype=np.int32))])
    with pytest.raises(SeallmError, match="19 positions, more than sequence_length 16"):
        row_arrays([row], 16, [np.zeros(1, np.int32)])
