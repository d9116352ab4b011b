"""A copy is a copy, whatever the layouts."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.interop.tiled_copy import TILE, copy_tiled

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_copies_what_an_assignment_copies(data):
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 17, 40]), min_size=0, max_size=4).map(tuple), label="shape")
    axes = st.permutations(range(len(shape)))
    source_axes, target_axes = data.draw(axes, label="source"), data.draw(axes, label="target")
    source_dtype, target_dtype = data.draw(st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)), label="dtypes")
    step = data.draw(st.integers(1, 3), label="step")
    rng = np.random.default_rng(len(shape))

    def laid_out(order, dtype):
        lengths = [shape[axis] for axis in order]
        wide = [*lengths[:-1], lengths[-1] * step] if lengths else []
        array = rng.standard_normal(wide).astype(dtype)[..., ::step] if lengths else np.array(1.5, dtype)
        return array.transpose(np.argsort(order)) if lengths else array

    source, target = laid_out(source_axes, source_dtype), laid_out(target_axes, target_dtype)
    copy_tiled(target, source)
    np.testing.assert_array_equal(target, source.astype(target_dtype))


@pytest.mark.parametrize("shape", list(itertools.product((TILE - 1, TILE, 2 * TILE + 3), repeat=2)))
def test_transposes_whole_and_cut_tiles(shape):
    source = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    target = np.full(shape[::-1], -1, np.float32)
    copy_tiled(target, source.T)
    np.testing.assert_array_equal(target, source.T)


def test_writes_nothing_beside_a_view():
    whole = np.zeros((600, 900), np.float32)
    source = np.arange(300 * 400, dtype=np.float32).reshape(400, 300)
    copy_tiled(whole[100:400, 200:600], source.T)
    np.testing.assert_array_equal(whole[100:400, 200:600], source.T)
    whole[100:400, 200:600] = 0
    assert not whole.any()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        copy_tiled(np.zeros((2, 3)), np.zeros((3, 2)))
