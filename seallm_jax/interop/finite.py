"""Whether all numbers of an array are finite."""

from __future__ import annotations

import numpy as np

CHECK_ELEMENTS = 1 << 16  # looked at in one go, few enough for the processor's cache


def is_finite(array: np.ndarray) -> bool:
    """Whether no element of a C-contiguous array of floats is infinite or no number.

    Looks at bits: those of positive numbers grow with the number up to infinity, and beyond are no numbers; read as
    unsigned, those of negative ones follow in the same order.
    """
    signed, unsigned = (array.reshape(-1).view(f"{kind}{array.dtype.itemsize}") for kind in "iu")
    infinity, negative = (np.array([value], array.dtype) for value in (np.inf, -np.inf))
    highest, highest_negative = infinity.view(signed.dtype)[0], negative.view(unsigned.dtype)[0]
    for start in range(0, signed.size, CHECK_ELEMENTS):
        part = slice(start, start + CHECK_ELEMENTS)
        if signed[part].max() >= highest or unsigned[part].max() >= highest_negative:
            return False
    return True
