"""Random mixtures around a centre, within a floor and the limits of the data."""

from __future__ import annotations

import dataclasses

import numpy as np

from seallm_jax.core.errors import SeallmError

SMALLEST_CONCENTRATION = 1e-2  # below, draws are all but corners and their arithmetic underflows


@dataclasses.dataclass(frozen=True)
class MixtureSampler:
    """Draws shares of K sources that are allowed.

    Attributes:
      centre: float64 [K], shares that sum to 1.
      limits: float64 [K], the largest share of each source.
      floor: the least share of a source, where its limit allows it.
    """

    centre: np.ndarray
    limits: np.ndarray
    floor: float = 0.0

    def __post_init__(self):
        if self.limits.sum() < 1 - 1e-9:
            raise SeallmError(
                f"all sources at their limit fill {self.limits.sum():.0%} of the budget; raise search.maximum_epochs "
                "or lower the budget"
            )
        if self.floor * len(self.limits) >= 1:
            raise SeallmError(
                f"search.floor = {self.floor} leaves nothing to choose among {len(self.limits)} sources; lower it"
            )

    @classmethod
    def of_sizes(
        cls, tokens: np.ndarray, *, budget: float, maximum_epochs: float, alpha: float, floor: float
    ) -> MixtureSampler:
        """For sources of so many tokens: centred at size ** alpha, no source above its epochs within the budget."""
        shares = np.asarray(tokens, np.float64) ** alpha
        return cls(shares / shares.sum(), np.asarray(tokens) * maximum_epochs / budget, floor)

    def draw(self, count: int, strength: float, rng: np.random.Generator, centre: np.ndarray | None = None):
        """float64 [count, K]: Dirichlet draws around `centre`, made allowed; the larger `strength`, the closer."""
        around = self.centre if centre is None else centre
        concentration = np.maximum(strength * len(around) * around, SMALLEST_CONCENTRATION)
        return self.allowed(rng.dirichlet(concentration, count))

    def allowed(self, shares: np.ndarray) -> np.ndarray:
        """Shares [..., K] raised to the floor and cut to the limits; what is cut goes to the others in proportion."""
        shares = np.maximum(shares, np.maximum(self.floor, 1e-12))
        shares = shares / shares.sum(axis=-1, keepdims=True)
        for _ in range(len(self.limits)):  # each round brings one more source to its limit, or none
            full = shares >= self.limits * (1 - 1e-12)
            shares = np.where(full, self.limits, shares)
            free = np.where(full, 0.0, shares)
            left = 1 - np.where(full, shares, 0.0).sum(axis=-1, keepdims=True)
            total = free.sum(axis=-1, keepdims=True)
            shares = np.where(full, shares, free * left / np.where(total > 0, total, 1.0))
            if not (shares > self.limits * (1 + 1e-12)).any():
                break
        return shares
