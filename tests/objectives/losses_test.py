from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.objectives.losses import LossSums, sum_by_index, sum_by_segment

SHAPE = (3, 7)
integers = st.lists(st.integers(-2, 6), min_size=21, max_size=21).map(lambda x: np.array(x).reshape(SHAPE))


@settings(deadline=None)
@given(indices=integers, values=integers)
def test_sums_by_index_are_those_of_numpy(indices, values):
    inside = (indices >= 0) & (indices < 5)
    expected = np.bincount(indices[inside], values[inside], minlength=5)
    np.testing.assert_array_equal(sum_by_index(values.astype(np.float32), indices, 5), expected)


@settings(deadline=None)
@given(segments=integers, values=integers)
def test_sums_by_segment_leave_padding_out(segments, values):
    expected = [[row[of == s].sum() for s in range(1, 5)] for row, of in zip(values, segments, strict=True)]
    np.testing.assert_array_equal(sum_by_segment(values, segments, 4), expected)


def test_sums_add_part_by_part():
    one = LossSums(
        loss=jnp.float32(2),
        count=jnp.float32(3),
        by_language={"loss": jnp.array([2.0, 0.0]), "count": jnp.array([3.0, 0.0])},
        metrics={"accuracy": (jnp.float32(1), jnp.float32(3))},
    )
    two = one + one
    assert (two.loss, two.count, two.metrics["accuracy"]) == (4, 6, (2, 6))
    np.testing.assert_array_equal(two.by_language["loss"], [4, 0])
