import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.served_record import ServedRecord

LINES = [
    {"rows": 30, "served": {"text/en": 2 / 3, "text/km": 1 / 3}, "counts_by_language": {"en": 200.0, "km": 90.0}},
    {
        "rows": 70,
        "served": {"text/en": 41 / 70, "text/km": 25 / 70, "text/lo": 4 / 70},
        "counts_by_language": {"km": 150},
    },
]


def test_shares_become_the_rows_that_they_were_made_of():
    record = ServedRecord.of(LINES, "run")
    assert record.rows.tolist() == [30, 70]
    assert {name: rows.tolist() for name, rows in record.by_source.items()} == {
        "text/en": [20, 41],
        "text/km": [10, 25],
        "text/lo": [0, 4],
    }
    assert record.of_sources(["text/km", "text/lo", "text/none"]).tolist() == [10, 29]
    assert record.learned == {"en": 200, "km": 240}


def test_counts_are_exact_at_the_scale_of_long_runs():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(10**9, rng.dirichlet(np.ones(500)))
    line = {
        "rows": 10**9,
        "served": {f"text/{i}": count / 10**9 for i, count in enumerate(counts.tolist())},
        "counts_by_language": {},
    }
    record = ServedRecord.of([line], "run")
    assert [int(record.by_source[f"text/{i}"][0]) for i in range(500)] == counts.tolist()


@pytest.mark.parametrize("lines", [[], [{"rows": 3, "served": {}}], [LINES[0], {"rows": 70}]])
def test_lines_that_do_not_tell(lines):
    with pytest.raises(SeallmError, match="stage 'x' has not recorded what it served"):
        ServedRecord.of(lines, "stage 'x'")
