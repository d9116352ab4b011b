"""The confusion table, by hand."""

import pytest

from seallm_jax.corpus.confusion import ConfusionTable


def test_counts_recall_and_precision():
    table = ConfusionTable()
    for true, found, number in (("id", "id", 9), ("id", "ms", 1), ("ms", "ms", 1), ("ms", "id", 1), ("ms", "fr", 2)):
        for _ in range(number):
            table.add(true, found)
    assert table.languages == ("id", "ms") and table.total("ms") == 4
    assert table.recall("id") == 0.9 and table.recall("ms") == 0.25
    # languages weighted alike: 0.9 of id against 0.25 of ms
    assert table.precision("id") == pytest.approx(0.9 / 1.15) and table.precision("ms") == pytest.approx(0.25 / 0.35)
    assert table.precision("vi") is None
    assert table.rows() == [
        {"true": "id", "id": 9, "ms": 1, "other": None},
        {"true": "ms", "id": 1, "ms": 1, "other": 2},
    ]
