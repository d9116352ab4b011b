"""Pieces of rows of all kinds, for hypothesis."""

import numpy as np
from hypothesis import strategies as st

from seallm_jax.data.row import Piece


@st.composite
def pieces(draw):
    made = []
    for _ in range(draw(st.integers(1, 6))):
        n = draw(st.integers(1, 9))
        high = draw(st.sampled_from([100, 0xFFFF, 200_000, 2**31 - 1]))
        ids = np.array(draw(st.lists(st.integers(0, high), min_size=n + 1, max_size=n + 1)), np.int32)
        learned = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array))
        made.append(
            Piece(ids, draw(st.integers(0, 3)), draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 50)), learned)
        )
    return made
