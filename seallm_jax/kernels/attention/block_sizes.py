"""Sizes of the blocks of the TPU kernels, from a small table and the chip's memory."""

from __future__ import annotations

import dataclasses

from seallm_jax.kernels.vector_memory import vector_memory


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """Sizes in positions.

    Attributes:
      forward: queries and keys of a block in the forward pass.
      forward_tile: keys whose scores are computed at a time.
      backward: queries and keys of a block in the backward pass.
      backward_tile: keys whose scores are computed at a time.
      vmem_bytes: vector memory that a kernel may use.
    """

    forward: int
    forward_tile: int
    backward: int
    backward_tile: int
    vmem_bytes: int


@dataclasses.dataclass(frozen=True)
class _Chip:
    """What is best on a chip, by the cycles of its compiled kernels (`seallm bench attention`).

    Attributes:
      long_documents: from this length on, blocks of 1024 are faster than blocks of 512.
      tiles: by block, forward and backward.
    """

    long_documents: int
    tiles: dict[int, tuple[int, int]]


# v5p has the matrix units of v5e; small blocks are all that the memory of v4 and of unknown chips holds
_SMALL = {512: (256, 256), 256: (256, 256), 128: (128, 128)}
_V5_TILES = {1024: (128, 128), 512: (128, 128), 256: (256, 256), 128: (128, 128)}
_CHIPS = {
    "TPU v4": _Chip(0, _SMALL),
    "TPU v5 lite": _Chip(2300, _V5_TILES),
    "TPU v5": _Chip(2300, _V5_TILES),
    "TPU v6 lite": _Chip(1200, {1024: (512, 256)} | _SMALL),
    "TPU7x": _Chip(1200, {1024: (512, 256)} | _SMALL),  # the matrix units of v6e; its cycles are not known
}
_OTHERS = _Chip(0, _SMALL)


def padded_length(positions: int) -> int:
    """Length to which a row is worth filling up, so that its blocks are larger: by an eighth at most."""
    lengths = (-(-positions // block) * block for block in (512, 256))
    return next((length for length in lengths if 8 * length <= 9 * positions), positions)


def choose_block_sizes(
    device_kind: str, positions: int, head_size: int, itemsize: int = 2, document_length: int = 0
) -> BlockSizes:
    """The block sizes for rows of so many positions.

    Args:
      device_kind: `jax.Device.device_kind`.
      positions: of a row; a multiple of 128.
      head_size: wider heads than 128 take smaller blocks.
      itemsize: bytes of a number; 4 takes smaller blocks.
      document_length: usual length of a document, as its tokens see it: sum of squares over sum; 0 when it is the row.
        Large blocks waste work at the borders of short documents, small ones are slower within long ones.
    """
    chip = _CHIPS.get(device_kind, _OTHERS)
    most = 512 if 0 < document_length < chip.long_documents or head_size > 128 or itemsize > 2 else 1024
    block = next(size for size in sorted(chip.tiles, reverse=True) if size <= most and positions % size == 0)
    forward_tile, backward_tile = chip.tiles[block]
    return BlockSizes(block, forward_tile, block, backward_tile, vector_memory(device_kind).alone)
