"""The curriculum's promise: at every prefix and for every source, |served - quota| < 1 row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.data import deadline_rule
from seallm_jax.data.chairman import assign_rows
from seallm_jax.data.open_jobs import OpenJobs
from seallm_jax.data.schedule import WeightSchedule, quantize, scale_bits


def worst_error(schedule: WeightSchedule, order: np.ndarray) -> float:
    """Largest |served - quota| in rows, computed row by row; checks that no source is served without weight."""
    per_row = np.repeat(schedule.weights, np.diff(schedule.starts), axis=0)
    served = order[:, None] == np.arange(schedule.sources)
    assert per_row[served].min() > 0, "a source without weight was served"
    error = np.cumsum(served * schedule.scale - per_row, axis=0)  # exact: below 2**62
    return float(np.abs(error).max()) / schedule.scale


def make_schedule(shares: np.ndarray, starts: list[int]) -> WeightSchedule:
    scale = 1 << scale_bits(starts[-1])
    weights = [quantize((row / row.sum()).tolist(), scale) for row in shares]
    return WeightSchedule(np.array(starts, np.int64), np.array(weights, np.int64), scale)


def random_schedule(rng: np.random.Generator, *, sources: int, rows: int, segments: int, absent: float):
    cuts = np.sort(rng.choice(np.arange(1, rows), segments - 1, replace=False)).tolist()
    kind = rng.integers(3)
    shares = (
        10.0 ** rng.uniform(-6, 0, (segments, sources))  # down to 1e-6
        if kind == 0
        else rng.random((segments, sources)) + 1e-6
        if kind == 1
        else np.ones((segments, sources))  # equal weights: many ties
    )
    shares *= rng.random((segments, sources)) >= absent
    shares[np.arange(segments), rng.integers(sources, size=segments)] += 1e-6
    return make_schedule(shares, [0, *cuts, rows])


@given(
    seed=st.integers(0, 2**32),
    sources=st.integers(1, 60),
    segments=st.integers(1, 12),
    rows=st.integers(13, 900),
    absent=st.sampled_from([0.0, 0.0, 0.3, 0.7, 0.95]),
)
@settings(max_examples=400, deadline=None)
def test_served_and_quota_differ_by_less_than_a_row_at_every_prefix(seed, sources, segments, rows, absent):
    rng = np.random.default_rng(seed)
    schedule = random_schedule(rng, sources=sources, rows=rows, segments=segments, absent=absent)
    error = worst_error(schedule, assign_rows(schedule))
    assert error < 1
    present = int((schedule.weights > 0).any(axis=0).sum())
    if not schedule.absences() and present > 1:
        assert error <= 1 - 1 / (2 * present - 2) + 1e-9, "Tijdeman's bound"


@given(seed=st.integers(0, 2**32), sources=st.integers(2, 7), rows=st.integers(8, 60))
@settings(max_examples=250, deadline=None)
def test_sources_that_come_and_go_within_a_few_rows(seed, sources, rows):
    rng = np.random.default_rng(seed)
    segments = int(rng.integers(2, 8))
    schedule = random_schedule(rng, sources=sources, rows=rows, segments=segments, absent=0.5)
    assert worst_error(schedule, assign_rows(schedule)) < 1


def test_choices_that_fail_are_excluded_until_one_holds(monkeypatch):
    """Schedules for which the first choice of windows fails: the cuts find one that holds."""
    failures = []
    exclude = OpenJobs.exclude

    def count(self, failure):
        failures.append(failure)
        exclude(self, failure)

    monkeypatch.setattr(OpenJobs, "exclude", count)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        schedule = random_schedule(rng, sources=int(rng.integers(3, 30)), rows=80, segments=6, absent=0.6)
        assert worst_error(schedule, assign_rows(schedule)) < 1
    assert {failure.first < 0 for failure in failures} == {True, False}, "both kinds of failure must have been met"


def test_a_source_far_below_one_in_two_thousand_gets_its_rows():
    """A rule that floors per block of 2048 rows gives 0.04 % nothing at all and 0.09 % half its share."""
    rows = 50_000
    shares = np.array([[1 - 0.0004 - 0.0009 - 0.00002, 0.0004, 0.0009, 0.00002]])
    order = assign_rows(make_schedule(shares, [0, rows]))
    assert np.bincount(order).tolist()[1:] == [20, 45, 1]


def test_chunks_do_not_change_the_order(monkeypatch):
    rng = np.random.default_rng(3)
    schedule = random_schedule(rng, sources=20, rows=3000, segments=5, absent=0.3)
    whole = assign_rows(schedule)
    monkeypatch.setattr(deadline_rule, "CHUNK_ROWS", 97)
    np.testing.assert_array_equal(assign_rows(schedule), whole)


def test_compiled_and_plain_rule_agree(monkeypatch):
    schedules = [
        random_schedule(np.random.default_rng(seed), sources=3 + seed, rows=700, segments=6, absent=0.15 * (seed % 5))
        for seed in range(25)
    ]
    plain = [assign_rows(schedule) for schedule in schedules]
    monkeypatch.setattr(deadline_rule, "COMPILED_ROWS", 0)
    for schedule, expected in zip(schedules, plain, strict=True):
        np.testing.assert_array_equal(assign_rows(schedule), expected)


def test_more_than_256_sources_need_two_bytes():
    schedule = make_schedule(np.ones((1, 300)), [0, 900])
    order = assign_rows(schedule)
    assert order.dtype == np.uint16
    assert (np.bincount(order) == 3).all()


@pytest.mark.parametrize("absent", [0.0, 0.5])
def test_a_long_schedule_of_sixty_sources(absent):
    rng = np.random.default_rng(11)
    schedule = random_schedule(rng, sources=60, rows=200_000, segments=4, absent=absent)
    assert worst_error(schedule, assign_rows(schedule)) < 1
