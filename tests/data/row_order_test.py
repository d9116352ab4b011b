import numpy as np
import pytest
from grain.experimental import index_shuffle

from seallm_jax.data.row_order import SMALL, _epoch_seed, _permutation, rows_served


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100, 5000])
def test_every_epoch_takes_every_row_once_in_an_order_of_its_own(rows):
    served = rows_served("text/lo", rows, np.arange(3 * rows), seed=5).reshape(3, rows)
    for epoch in served:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(rows))
    if rows >= 7:
        assert (served[0] != served[1]).any() and (served[1] != served[2]).any()


def test_any_part_is_the_same_as_that_part_of_the_whole():
    whole = rows_served("text/lo", 37, np.arange(200), seed=5)
    np.testing.assert_array_equal(rows_served("text/lo", 37, np.arange(60, 140), seed=5), whole[60:140])


def test_the_order_depends_on_seed_and_name():
    services = np.arange(500)
    base = rows_served("text/lo", 500, services, seed=0)
    assert (base != rows_served("text/lo", 500, services, seed=1)).any()
    assert (base != rows_served("text/km", 500, services, seed=0)).any()


def test_large_sources_are_shuffled_by_grain():
    rows = SMALL + 5
    services = np.arange(rows - 3, rows + 3)  # the end of one epoch and the beginning of the next
    expected = [
        index_shuffle(position, rows - 1, _epoch_seed(9, "text/en", epoch) & 0xFFFFFFFF, 4)
        for epoch, position in ((0, rows - 3), (0, rows - 2), (0, rows - 1), (1, 0), (1, 1), (1, 2))
    ]
    assert rows_served("text/en", rows, services, seed=9).tolist() == expected


def test_small_sources_follow_the_published_splitmix64_sequence():
    hashes = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert _permutation(5, 1234567).tolist() == np.argsort(np.array(hashes, np.uint64)).tolist()
