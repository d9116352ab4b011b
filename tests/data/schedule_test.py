from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.data.schedule import WeightSchedule, quantize, scale_bits, spread


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20).filter(lambda x: sum(x) > 1e-3))
@settings(max_examples=80, deadline=None)
def test_quantized_shares_sum_to_the_scale_and_stay_close(values):
    shares = [value / sum(values) for value in values]
    weights = quantize(shares, 1 << 40)
    assert sum(weights) == 1 << 40
    for share, weight in zip(shares, weights, strict=True):
        assert (weight > 0) == (share > 0)
        assert abs(weight / 2**40 - share) < 32 / 2**40


def test_a_capped_share_is_never_rounded_up():
    weights = quantize([0.3, 0.3, 0.4], 1 << 10, capped=frozenset({0, 2}))
    assert weights == [307, 1024 - 307 - 409, 409]


@given(st.integers(1, 40), st.lists(st.integers(0, 300), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_spread_adds_up_and_every_row_hands_out_the_same(rows, totals):
    totals[0] += -sum(totals) % rows
    segments = spread(totals, rows)
    assert sum(length for length, _ in segments) == rows
    assert all(length > 0 for length, _ in segments)
    assert {sum(weights) for _, weights in segments} == {sum(totals) // rows}
    got = np.sum([np.array(weights) * length for length, weights in segments], axis=0)
    np.testing.assert_array_equal(got, totals)


def make_schedule(seed, sources=4, rows=60, segments=3):
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.sort(rng.choice(np.arange(1, rows), segments - 1, replace=False)), [rows]])
    shares = rng.random((segments, sources)) * (rng.random((segments, sources)) < 0.7)
    shares[:, 0] += 0.01
    scale = 1 << scale_bits(rows)
    weights = [quantize((row / row.sum()).tolist(), scale) for row in shares]
    return WeightSchedule(starts.astype(np.int64), np.array(weights, np.int64), scale)


@pytest.mark.parametrize("seed", range(6))
def test_quotas_and_their_inverse_agree_with_plain_sums(seed):
    schedule = make_schedule(seed)
    per_row = np.array([schedule.weights_at(row).tolist() for row in range(schedule.rows)], dtype=object)
    sums = np.concatenate([np.zeros((1, 4), dtype=object), np.cumsum(per_row, axis=0)])
    prefixes = np.arange(schedule.rows + 1)
    for source in range(4):
        quotas = schedule.quota(source, prefixes)
        assert quotas.tolist() == sums[:, source].tolist()
        targets = np.unique(np.clip(np.concatenate([quotas, quotas + 1, quotas // 2]), 1, None))
        for target, row in zip(targets, schedule.row_reaching(source, targets), strict=True):
            reached = np.flatnonzero(quotas[1:] >= target)
            assert row == (reached[0] if reached.size else schedule.rows)
    assert schedule.quotas(17).tolist() == sums[17].tolist()


def test_absences_are_the_times_away_with_a_part_of_a_row_open():
    scale = 4
    weights = np.array([[1, 3], [0, 4], [2, 2], [0, 4]])
    schedule = WeightSchedule(np.array([0, 3, 5, 7, 9]), weights, scale)
    # source 0 leaves at row 3 with 3/4 of a row served by quota, and at row 7 with 3/4 + 1
    assert schedule.absences() == [(0, 3, 5), (0, 7, 9)]
    assert Fraction(int(schedule.quota(0, 7)), scale) == Fraction(7, 4)


def test_the_scale_leaves_room_for_every_quota():
    for rows in (1, 1000, 1 << 22, 1 << 30, 10**10):
        assert rows << scale_bits(rows) < 1 << 62


@pytest.mark.parametrize(
    ("starts", "weights", "scale"),
    [([0, 0, 5], [[4], [4]], 4), ([0, 5], [[3]], 4), ([0, 5], [[-1, 5]], 4), ([0, 1 << 40], [[1 << 30]], 1 << 30)],
)
def test_impossible_schedules_are_refused(starts, weights, scale):
    with pytest.raises(ValueError):
        WeightSchedule(np.array(starts), np.array(weights), scale)


def test_a_row_outside_is_an_index_error():
    with pytest.raises(IndexError):
        make_schedule(0).weights_at(60)
