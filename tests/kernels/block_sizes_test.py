from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.kernels.attention.block_sizes import choose_block_sizes

CHIPS = ("TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "a chip to come")


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
