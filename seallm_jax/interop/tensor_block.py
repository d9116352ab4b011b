"""A run of rows of a checkpoint's tensor, small enough for a buffer, and where its elements are in the parameters."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import CheckpointTensor
from seallm_jax.models.families.weight import Weight

BLOCK_BYTES = 16 << 20

Bounds = tuple[tuple[int, int], ...]  # start and stop of each dimension
Index = tuple[int | slice, ...]


@dataclasses.dataclass(frozen=True)
class TensorBlock:
    """Rows of a tensor that follow each other.

    Attributes:
      tensor: whose rows.
      shape: the block's shape, which is the tensor's but for the first dimension.
      row: the first row.
      start: the same, counted in the first letter of the tensor's dimensions: a head, for one, has several rows.
    """

    tensor: CheckpointTensor
    shape: tuple[int, ...]
    row: int
    start: int

    @property
    def first_element(self) -> int:
        """Elements of the tensor before the block."""
        return self.row * math.prod(self.shape[1:])

    def shared(
        self, block: np.ndarray, weight: Weight, bounds: Bounds, config: ModelConfig
    ) -> tuple[Index, np.ndarray] | None:
        """What the block has in common with a part of a parameter, or None.

        Args:
          block: memory of the block's shape.
          weight: one of the tensor's rows of the weight table: the parameter.
          bounds: which elements of the parameter the part holds.
          config: the model's shape.

        Returns:
          The index of the common elements in the part, and a view of `block` with them in the parameter's layout.
        """
        view = weight.from_checkpoint(block, config)
        layer: Index = ()
        if self.tensor.layer is not None:
            (low, high), *others = bounds
            if not low <= self.tensor.layer < high:
                return None
            layer, bounds = (self.tensor.layer - low,), tuple(others)
        starts = [self.start if letter == weight.theirs[0][0] else 0 for letter in weight.ours]
        common = [
            (start, max(low, start), min(high, start + size), low)
            for (low, high), start, size in zip(bounds, starts, view.shape, strict=True)
        ]
        if any(first >= last for _, first, last, _ in common):
            return None
        index = tuple(slice(first - low, last - low) for _, first, last, low in common)
        return (*layer, *index), view[tuple(slice(first - start, last - start) for start, first, last, _ in common)]


def tensor_blocks(tensor: CheckpointTensor, config: ModelConfig, itemsize: int) -> list[TensorBlock]:
    """A tensor in blocks of about `BLOCK_BYTES`. One that begins with its fused parts is one block."""
    letter = tensor.rows[0].theirs[0][0]
    count = tensor.rows[0].sizes(config)[letter]
    rows = tensor.shape[0] // count
    step = count if letter == "P" else max(1, BLOCK_BYTES * count // max(1, math.prod(tensor.shape) * itemsize))
    return [
        TensorBlock(tensor, ((min(start + step, count) - start) * rows, *tensor.shape[1:]), start * rows, start)
        for start in range(0, count, step)
    ]
