import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.data.batch_plan import BatchPlan

STAGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=5)


def walk(stops, sizes):
    """(stage, first row, size) of each step, one after the other."""
    steps, row = [], 0
    while row < stops[-1]:
        stage = int(np.searchsorted(stops, row, side="right"))
        if row + sizes[stage] > stops[-1]:
            break
        steps.append((stage, row, sizes[stage]))
        row += sizes[stage]
    return steps, row


@given(STAGES)
@settings(max_examples=600, deadline=None)
def test_every_step_takes_its_stages_batch(stages):
    stops, sizes = np.cumsum([rows for rows, _ in stages]).tolist(), [size for _, size in stages]
    plan = BatchPlan.of(stops, sizes)
    expected, rows = walk(stops, sizes)
    assert (plan.total_steps, plan.total_rows) == (len(expected), rows)
    assert plan.sizes == tuple(sorted({size for _, _, size in expected}))
    for step, (stage, row, size) in enumerate(expected):
        assert (plan.stage_at(step), plan.rows_before(step), plan.size_at(step)) == (stage, row, size)
        assert plan.steps_before(row) == step
    assert plan.rows_before(len(expected)) == rows and plan.steps_before(rows) == len(expected)
    for row in set(range(rows)) - {row for _, row, _ in expected}:
        with pytest.raises(ValueError, match=f"row {row}"):
            plan.steps_before(row)


def test_one_size_is_whole_batches():
    plan = BatchPlan.of([10, 33], [8, 8])
    assert plan.spans == ((2, 8), (2, 8)) and plan.total_rows == 32


def test_steps_outside_are_index_errors():
    with pytest.raises(IndexError):
        BatchPlan.of([10], [3]).size_at(3)
