from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.kernels.attention.block_sizes import choose_block_sizes, padded_length

CHIPS = ("TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x", "a chip to come")


@given(st.sampled_from(CHIPS), st.integers(1, 64), st.sampled_from((64, 128, 256)), st.sampled_from((2, 4)))
def test_blocks_divide_the_row_and_tiles_the_blocks(chip, count, head_size, itemsize):
    positions = 128 * count
    sizes = choose_block_sizes(chip, positions, head_size, itemsize)
    for block, tile in ((sizes.forward, sizes.forward_tile), (sizes.backward, sizes.backward_tile)):
        assert positions % block == 0 and block % tile == 0
        # scores of a tile and two buffers of what a block reads
        assert 4 * block * tile + 2 * 6 * block * head_size * itemsize < sizes.vmem_bytes


@pytest.mark.parametrize(
    ("chip", "document_length", "block"),
    [
        ("TPU v5 lite", 0, 1024),
        ("TPU v5 lite", 1000, 512),
        ("TPU v5 lite", 2000, 512),
        ("TPU v5 lite", 3000, 1024),
        ("TPU v6 lite", 1000, 512),
        ("TPU v6 lite", 2000, 1024),
        ("TPU v4", 0, 512),
    ],
)
def test_short_documents_take_smaller_blocks(chip, document_length, block):
    assert choose_block_sizes(chip, 8192, 128, document_length=document_length).forward == block


@given(st.integers(1, 1024))
def test_rows_are_filled_up_by_an_eighth_at_most_and_then_have_larger_blocks(count):
    positions = 128 * count
    length = padded_length(positions)
    assert positions <= length <= positions * 9 / 8 and length % 128 == 0
    if length > positions:
        before, after = (choose_block_sizes("TPU v5", x, 128).forward for x in (positions, length))
        assert after >= 2 * before
    if positions >= 4096:
        assert length % 512 == 0
