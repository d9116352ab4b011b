import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from seallm_jax.data.row_order import _splitmix, permuted, rows_served


def served_by_one(name, rows, services, seed):
    return rows_served([name], np.array([rows]), np.zeros(len(services), int), services, seed)


@given(rows=st.integers(1, 5000), seed=st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_every_epoch_takes_every_row_once_in_an_order_of_its_own(rows, seed):
    served = served_by_one("text/lo", rows, np.arange(3 * rows), seed=seed).reshape(3, rows)
    for epoch in served:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(rows))
    if rows >= 20:
        assert (served[0] != served[1]).any() and (served[1] != served[2]).any()


@pytest.mark.parametrize("rows", [37, (1 << 40) + 5])
def test_any_part_is_the_same_as_that_part_of_the_whole(rows):
    services = np.arange(rows - 20, rows + 180)
    whole = served_by_one("text/lo", rows, services, seed=5)
    assert whole.min() >= 0 and whole.max() < rows
    np.testing.assert_array_equal(served_by_one("text/lo", rows, services[40:150], seed=5), whole[40:150])


def test_the_order_depends_on_seed_and_name():
    services = np.arange(500)
    base = served_by_one("text/lo", 500, services, seed=0)
    assert (base != served_by_one("text/lo", 500, services, seed=1)).any()
    assert (base != served_by_one("text/km", 500, services, seed=0)).any()


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_permutations_of_few_rows_are_equally_likely(size):
    draws = 24_000
    orders = permuted(
        np.tile(np.arange(size), draws),
        np.full(size * draws, size),
        _splitmix(np.repeat(np.arange(draws, dtype=np.uint64), size)),
    )
    seen = collections.Counter(map(tuple, orders.reshape(draws, size).tolist()))
    counts = [seen[order] for order in itertools.permutations(range(size))]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("size", [1000, 1 << 16, 100_003])
def test_neighbours_and_places_are_spread_evenly(size):
    keys = _splitmix(np.arange(40, dtype=np.uint64))
    orders = np.stack([permuted(np.arange(size), np.full(size, size), np.full(size, key)) for key in keys])
    steps = (np.diff(orders, axis=1) % size) * 50 // size
    assert stats.chisquare(np.bincount(steps.ravel(), minlength=50)[1:-1]).pvalue > 1e-4
    correlation = np.corrcoef(np.arange(size), orders)[0, 1:]
    assert np.abs(correlation).max() < 5 / np.sqrt(size)


def test_the_constants_follow_the_published_splitmix64_sequence():
    hashes = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    increment = 0x9E3779B97F4A7C15
    start = 1234567 * pow(increment, -1, 1 << 64) % (1 << 64)  # the place whose state is the published seed
    places = np.array([(start + step) % (1 << 64) for step in range(1, 6)], np.uint64)
    assert _splitmix(places).tolist() == hashes


def test_sources_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    sizes, sources = np.array([7, 500, 70_000]), rng.integers(0, 3, 400)
    services = rng.integers(0, 200_000, 400)
    together = rows_served(["a", "b", "c"], sizes, sources, services, 1)
    for index, name in enumerate("abc"):
        alone = served_by_one(name, sizes[index], services[sources == index], 1)
        np.testing.assert_array_equal(together[sources == index], alone)
