"""A share of correct answers with its standard error."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """`correct` out of `total` independent trials.

    Attributes:
      correct: number of successes; a tie counts half.
      total: number of trials, positive.
    """

    correct: float
    total: int

    def __post_init__(self):
        if not 0 <= self.correct <= self.total or self.total < 1:
            raise ValueError(f"{self.correct} correct out of {self.total}")

    @property
    def value(self) -> float:
        """Share in [0, 1]."""
        return self.correct / self.total

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean with the n - 1 variance, as in lm-evaluation-harness; None for a single trial."""
        if self.total < 2:
            return None
        return math.sqrt(self.value * (1 - self.value) / (self.total - 1))

    def to_json(self) -> dict[str, Any]:
        """`value` and `standard_error`."""
        return {"value": self.value, "standard_error": self.standard_error}
