"""Memory straight from the system."""

from __future__ import annotations

import mmap

import numpy as np

FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def fresh_memory(size: int) -> np.ndarray:
    """uint8 [size], zeros that take no memory until they are written, and go back to the system when released.

    It begins at a page: JAX takes such an array on a CPU as it is, and copies one that lies less well. NumPy would ask
    for huge pages, which are slow to come by where memory is fragmented.
    """
    return np.frombuffer(mmap.mmap(-1, max(size, 1), flags=FLAGS), np.uint8, size)
