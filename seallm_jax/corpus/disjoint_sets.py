"""Groups of numbers that are linked with each other."""

from __future__ import annotations

import numpy as np


class DisjointSets:
    """The numbers 0 ... size - 1 in sets that `link` joins. The smallest number of a set stands for it."""

    def __init__(self, size: int):
        self._parent = np.arange(size)

    def roots(self, items: np.ndarray) -> np.ndarray:
        """The smallest number in the set of each item."""
        roots = self._parent[items]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[items] = roots  # shortens the next search
                return roots
            roots = above

    def link(self, a: np.ndarray, b: np.ndarray) -> None:
        """Joins the sets of a[i] and b[i], for all i."""
        while True:
            roots_a, roots_b = self.roots(a), self.roots(b)
            apart = roots_a != roots_b
            if not apart.any():
                return
            a, b = roots_a[apart], roots_b[apart]
            # of several links from one root the smallest wins; the others remain for the next pass
            np.minimum.at(self._parent, np.maximum(a, b), np.minimum(a, b))
