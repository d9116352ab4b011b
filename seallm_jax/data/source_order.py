"""Which source serves each row, in memory or in a file, with counts and checksums at every block of rows."""

from __future__ import annotations

import pathlib
import zlib

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.chairman import assign_rows, order_dtype
from seallm_jax.data.schedule import WeightSchedule

BLOCK_ROWS = 1 << 16
_FILES = ("order.npy", "counts.npy", "checksums.npy")


class SourceOrder:
    """The sources of N rows. Any place is found at the cost of one block.

    From a file, nothing but the counts is read at first; a block is checked when it is first used.

    Attributes:
      rows: N.
    """

    def __init__(self, order: np.ndarray, counts: np.ndarray, checksums: np.ndarray, name: str = ""):
        """
        Args:
          order: uint8 or uint16 [N], source of each row.
          counts: int64 [blocks + 1, K], rows of each source before each block of 65,536 rows, and in all.
          checksums: uint32 [blocks], CRC-32 of each block.
          name: for errors.
        """
        self.rows = len(order)
        self._order, self._counts, self._checksums, self._name = order, counts, checksums, name
        self._checked: set[int] = set()

    @classmethod
    def compile(cls, schedule: WeightSchedule, directory: pathlib.Path | None = None) -> SourceOrder:
        """Assigns every row: some 0.1 us a row, in memory for 1 or 2 bytes a row, or with `directory` in its files."""
        order = None
        if directory is not None:
            dtype = order_dtype(schedule.sources)
            order = np.lib.format.open_memmap(directory / _FILES[0], "w+", dtype, (schedule.rows,))
        order = assign_rows(schedule, order)
        starts = range(0, schedule.rows, BLOCK_ROWS)
        counts = np.zeros((len(starts) + 1, schedule.sources), np.int64)
        checksums = np.zeros(len(starts), np.uint32)
        for number, start in enumerate(starts):
            block = np.ascontiguousarray(order[start : start + BLOCK_ROWS])
            counts[number + 1] = counts[number] + np.bincount(block, minlength=schedule.sources)
            checksums[number] = zlib.crc32(block.data)
        if directory is None:
            return cls(order, counts, checksums)
        order.flush()  # type: ignore[attr-defined]
        np.save(directory / _FILES[1], counts, allow_pickle=False)
        np.save(directory / _FILES[2], checksums, allow_pickle=False)
        return cls.load(directory)

    @classmethod
    def empty(cls) -> SourceOrder:
        """No rows."""
        return cls(np.zeros(0, np.uint8), np.zeros((1, 0), np.int64), np.zeros(0, np.uint32))

    @classmethod
    def load(cls, directory: pathlib.Path) -> SourceOrder:
        """Opens what `compile` wrote. Raises ValueError or OSError when a file is missing or does not fit."""
        order = np.load(directory / _FILES[0], mmap_mode="r", allow_pickle=False)
        counts, checksums = (np.load(directory / name, allow_pickle=False) for name in _FILES[1:])
        if len(counts) != len(checksums) + 1 or counts[-1].sum() != len(order):
            raise ValueError("its files do not belong together")
        return cls(order, counts, checksums, str(directory))

    def read(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start], sources of the rows start .. stop - 1. Raises SeallmError for a damaged block."""
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            self._check(block)
        return np.array(self._order[start:stop], np.int32)

    def served(self, prefix: int) -> np.ndarray:
        """int64 [K], how many of the rows 0 .. prefix - 1 each source serves."""
        block = prefix // BLOCK_ROWS
        inside = self.read(block * BLOCK_ROWS, prefix)
        return self._counts[block] + np.bincount(inside, minlength=self._counts.shape[1])

    def _check(self, block: int) -> None:
        if block in self._checked:
            return
        content = np.ascontiguousarray(self._order[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS])
        if zlib.crc32(content.data) != self._checksums[block]:
            raise SeallmError(
                f"schedule {self._name} is damaged in rows {block * BLOCK_ROWS} .. "
                f"{block * BLOCK_ROWS + len(content) - 1}; delete it to have it compiled again"
            )
        self._checked.add(block)
