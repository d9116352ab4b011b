"""Copies between layouts: a transposition in tiles that stay in the processor's cache."""

from __future__ import annotations

import numpy as np

TILE = 512  # elements a side
SKEW = 8  # unused elements behind each row of a tile, so that a column does not fall onto one cache set


def copy_tiled(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source`, fast also when the two lie transposed to each other in memory.

    A plain assignment walks one of the two with a stride of a whole row and misses the cache at each element. Here a
    tile is read in the source's order, cast, and written in the target's.

    Args:
      target: any strides; may be of another dtype.
      source: the same shape.
    """
    if target.shape != source.shape:
        raise ValueError(f"shapes {target.shape} and {source.shape} differ")
    if target.size == 0:
        return
    if target.dtype == source.dtype:
        # NumPy copies a type that it does not know, as bfloat16, without letting other threads run meanwhile
        bits = np.dtype(f"u{target.dtype.itemsize}")
        target, source = target.view(bits), source.view(bits)
    target, source = _merge_axes(target, source)
    row, column = _fastest(target), _fastest(source)
    if row == column or target.size <= TILE:
        target[...] = source
        return
    others = [axis for axis in range(target.ndim) if axis not in (row, column)]
    # both as [..., source's fastest axis, target's fastest axis]
    target, source = (array.transpose([*others, column, row]) for array in (target, source))
    buffer_TxT = np.empty((TILE, TILE + SKEW), target.dtype)
    for index in np.ndindex(target.shape[:-2]):
        _copy_plane(target[index], source[index], buffer_TxT)


def _merge_axes(target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views in which neighbouring axes that are one run of memory in both are one axis: larger planes, fewer tiles."""
    for axis in range(target.ndim - 2, -1, -1):
        first, second = target.shape[axis : axis + 2]
        if all(array.strides[axis] == array.strides[axis + 1] * second for array in (target, source)):
            shape = (*target.shape[:axis], first * second, *target.shape[axis + 2 :])
            target, source = target.reshape(shape), source.reshape(shape)
    return target, source


def _copy_plane(target_AxB: np.ndarray, source_AxB: np.ndarray, buffer_TxT: np.ndarray) -> None:
    A, B = target_AxB.shape
    for b in range(0, B, TILE):
        for a in range(0, A, TILE):
            tile = source_AxB[a : a + TILE, b : b + TILE]
            part = buffer_TxT[: tile.shape[1], : tile.shape[0]]
            part[...] = tile.T
            target_AxB[a : a + TILE, b : b + TILE] = part.T


def _fastest(array: np.ndarray) -> int:
    """The axis along which neighbours lie closest in memory; among axes of one element, none is chosen."""
    strides = [(abs(stride), -axis) for axis, stride in enumerate(array.strides) if array.shape[axis] > 1]
    return -min(strides)[1] if strides else 0
