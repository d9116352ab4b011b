"""Accuracies and their errors."""

import numpy as np
import pytest

from seallm_jax.evaluation.accuracy import Accuracy


def test_the_standard_error_is_that_of_the_mean():
    sample = np.asarray([1] * 30 + [0] * 10)
    accuracy = Accuracy(30, 40)
    assert accuracy.value == 0.75
    assert accuracy.standard_error == pytest.approx(sample.std(ddof=1) / np.sqrt(40))
    assert Accuracy(1, 1).to_json() == {"value": 1.0, "standard_error": None}


def test_impossible_counts_are_refused():
    for correct, total in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="correct out of"):
            Accuracy(correct, total)
