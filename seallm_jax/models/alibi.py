"""Linear biases of attention (arXiv 2108.12409)."""

from __future__ import annotations

import numpy as np


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Slope of each head, float32 [H], as BLOOM has them.

    For a power of two n they are 2**(-8 i / n), i = 1..n. Any other number takes those of the power of two below, then
    every other slope of the power of two above.
    """
    below = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * i / below) for i in range(1, below + 1)]
    slopes += [2.0 ** (-4 * i / below) for i in range(1, 2 * (num_heads - below), 2)]
    return np.array(slopes, np.float32)
