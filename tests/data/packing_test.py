import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.data.packing import fill_gaps, pack, split_ids


@given(st.integers(0, 200), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_the_parts_of_a_document_hold_every_target_once(count, length):
    ids = np.arange(count)
    parts = split_ids(ids, length)
    assert all(1 <= len(part) - 1 <= length for part in parts)
    targets = [int(target) for part in parts for target in part[1:]]
    inputs = [int(token) for part in parts for token in part[:-1]]
    assert targets == list(range(1, count)) and inputs == list(range(max(count - 1, 0)))


def reference_best_fit(lengths, capacity, maximum):
    """Best-fit decreasing by looking at every row."""
    rows, room = [], []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [r for r in range(len(rows)) if room[r] >= lengths[item] and (not maximum or len(rows[r]) < maximum)]
        if fitting:
            best = min(fitting, key=lambda r: room[r])
        else:
            rows.append([])
            room.append(capacity)
            best = len(rows) - 1
        rows[best].append(item)
        room[best] -= lengths[item]
    return room


@given(
    st.lists(st.integers(1, 32), max_size=80),
    st.integers(32, 100),
    st.sampled_from([0, 0, 1, 3]),
)
@settings(max_examples=200, deadline=None)
def test_best_fit_decreasing(lengths, capacity, maximum):
    rows = pack(lengths, capacity, maximum_items=maximum)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    room = [capacity - sum(lengths[item] for item in row) for row in rows]
    assert all(left >= 0 for left in room)
    assert not maximum or all(len(row) <= maximum for row in rows)
    assert sorted(room) == sorted(reference_best_fit(lengths, capacity, maximum))


def test_rows_are_as_few_as_text_allows():
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1.2, 20_000).astype(int) + 1, 2048)
    rows = pack(lengths, 2048)
    assert lengths.sum() / (len(rows) * 2048) > 0.999


@pytest.mark.parametrize("lengths", [[0, 3], [3, 11]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="between 1 and 10"):
        pack(lengths, 10)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60), st.floats(0.5, 1.0))
@settings(max_examples=200, deadline=None)
def test_cutting_keeps_every_position_and_reaches_the_fill(lengths, fill):
    capacity = 64
    rows = pack(lengths, capacity)
    cut = fill_gaps(lengths, rows, capacity, fill)
    covered = {item: np.zeros(length, int) for item, length in enumerate(lengths)}
    for row in cut:
        assert sum(stop - start for _, start, stop in row) <= capacity
        for item, start, stop in row:
            assert start < stop
            covered[item][start:stop] += 1
    assert all((count == 1).all() for count in covered.values())
    total = sum(lengths)
    assert len(cut) == -(-total // capacity) or total >= fill * capacity * len(cut) or len(cut) == len(rows)
    assert len(cut) <= len(rows)
    if len(cut) > -(-total // capacity):
        assert total >= fill * capacity * len(cut) - 1e-6
