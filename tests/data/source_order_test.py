import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.data import source_order
from seallm_jax.data.chairman import assign_rows
from seallm_jax.data.schedule import WeightSchedule
from seallm_jax.data.source_order import SourceOrder

SCHEDULE = WeightSchedule(np.array([0, 400, 1000]), np.array([[5, 2, 1], [0, 3, 5]]), 8)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(source_order, "BLOCK_ROWS", 64)


@pytest.mark.parametrize("kept", [False, True])
def test_counts_and_rows_are_those_of_the_assignment(kept, tmp_path):
    order = SourceOrder.compile(SCHEDULE, tmp_path if kept else None)
    expected = assign_rows(SCHEDULE)
    assert order.rows == 1000
    for start, stop in ((0, 1000), (63, 65), (128, 128), (990, 1000)):
        np.testing.assert_array_equal(order.read(start, stop), expected[start:stop])
    for prefix in (0, 1, 64, 640, 999, 1000):
        np.testing.assert_array_equal(order.served(prefix), np.bincount(expected[:prefix], minlength=3))


def test_a_damaged_block_is_named_when_it_is_used(tmp_path):
    SourceOrder.compile(SCHEDULE, tmp_path)
    data = bytearray((tmp_path / "order.npy").read_bytes())
    data[-1000 + 130] ^= 1
    (tmp_path / "order.npy").write_bytes(data)
    order = SourceOrder.load(tmp_path)
    assert order.read(0, 128).shape == (128,) and order.served(999).sum() == 999
    with pytest.raises(SeallmError, match=r"damaged in rows 128 \.\. 191; delete it"):
        order.read(100, 140)


def test_files_of_another_order_are_refused(tmp_path):
    SourceOrder.compile(SCHEDULE, tmp_path)
    np.save(tmp_path / "counts.npy", np.zeros((17, 3), np.int64))
    with pytest.raises(ValueError, match="belong together"):
        SourceOrder.load(tmp_path)
