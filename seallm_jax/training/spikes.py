"""Notices a loss that leaps up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW, NEAR = 100, 20  # losses that are remembered, and those that a loss is compared with


class SpikeWatch:
    """Compares each loss with the mean of those before it, by the usual change from one loss to the next.

    Changes, unlike the spread of the losses, are small where the loss falls fast. A spike is not remembered, and after
    one everything is forgotten, so that a lasting rise, as at the beginning of a stage with other data, counts as one.
    """

    def __init__(self, threshold: float, losses: Sequence[float] = ()):
        """
        Args:
          threshold: a spike lies above the mean of the last 20 losses by more than this times the root mean square of
            the last changes; 0 takes nothing for one.
          losses: `state` of the watch that goes on.
        """
        self._threshold = threshold
        self._losses = list(losses)

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is one; if not, it counts for the next. What is not finite is none, and does not count."""
        if not self._threshold or not np.isfinite(loss):
            return False
        if len(self._losses) >= NEAR:
            change = float(np.sqrt(np.mean(np.diff(self._losses) ** 2)))
            if loss > np.mean(self._losses[-NEAR:]) + self._threshold * change:
                self._losses = []
                return True
        self._losses = [*self._losses, loss][-WINDOW:]
        return False

    def state(self) -> list[float]:
        """The losses that it remembers."""
        return list(self._losses)
