"""The mixture that a regression predicts to be the best, and how far it can be trusted."""

from __future__ import annotations

import dataclasses

import numpy as np

from seallm_jax.data.mixture_regression import MixtureRegression, r_squared, spearman
from seallm_jax.data.mixture_sampler import MixtureSampler

CANDIDATES, BEST, ROUNDS = 20_000, 100, 6
RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class MixtureProposal:
    """What a search proposes.

    Attributes:
      shares: float64 [K].
      regression: which predicts the losses.
      losses: float64 [L], predicted for `shares`.
      deviations: float64 [L], standard deviations of what would be measured: over fits to mixtures drawn again with
        replacement, and of predictions that leave a mixture out from what was measured for it, added in squares.
      objective: predicted for `shares`.
      objective_deviation: its standard deviation, likewise.
      wins: float64 [N], share of those fits that prefer `shares` to each measured mixture.
      spearman: rank correlation of measured objectives and predictions that leave the mixture out.
      r_squared: share of their variance that these predictions explain.
      by_language: float64 [L, 2], the same two for the losses of each language.
    """

    shares: np.ndarray
    regression: MixtureRegression
    losses: np.ndarray
    deviations: np.ndarray
    objective: float
    objective_deviation: float
    wins: np.ndarray
    spearman: float
    r_squared: float
    by_language: np.ndarray

    @classmethod
    def of(
        cls,
        shares: np.ndarray,
        losses: np.ndarray,
        weights: np.ndarray,
        sampler: MixtureSampler,
        *,
        log: bool = False,
        seed: int = 0,
    ) -> MixtureProposal:
        """Fits and searches.

        Candidates are drawn around the sampler's centre; the mean of the best is the next centre, and so on, closer and
        closer (the cross-entropy method, Rubinstein 1999). A mean of allowed mixtures is allowed.

        Args:
          shares: float64 [N, K], measured mixtures.
          losses: float64 [N, L], their positive losses.
          weights: float64 [L], of the losses in the objective; only their ratios count.
          sampler: which mixtures are allowed.
          log: take the mean of the losses' logarithms.
          seed: of candidates and resamples.
        """
        rng = np.random.default_rng(seed)
        weights = weights / weights.sum()

        def objective(values: np.ndarray) -> np.ndarray:
            return (np.log(values) if log else values) @ weights

        regression = MixtureRegression.fit(shares, losses)
        centre, strength = sampler.centre, 1.0
        for _ in range(ROUNDS):
            candidates = np.concatenate([sampler.draw(CANDIDATES, strength, rng, centre), shares, centre[None]])
            best = np.argsort(objective(regression.predict(candidates)))[:BEST]
            centre, strength = candidates[best].mean(axis=0), strength * 3
        drawn = [rng.integers(0, len(shares), len(shares)) for _ in range(RESAMPLES)]
        fits = [regression.refit(shares[rows], losses[rows]) for rows in drawn]
        proposed = np.array([fit.predict(centre) for fit in fits])
        others = np.array([objective(fit.predict(shares)) for fit in fits])
        predicted = regression.predict(centre)
        measured, left_out = objective(losses), objective(regression.left_out)
        return cls(
            shares=centre,
            regression=regression,
            losses=predicted,
            deviations=np.hypot(proposed.std(axis=0), _error(losses, regression.left_out)),
            objective=float(objective(predicted)),
            objective_deviation=float(np.hypot(objective(proposed).std(), _error(measured, left_out))),
            wins=(objective(proposed)[:, None] < others).mean(axis=0),
            spearman=spearman(measured, left_out),
            r_squared=r_squared(measured, left_out),
            by_language=np.array(
                [
                    [trust(a, b) for trust in (spearman, r_squared)]
                    for a, b in zip(losses.T, regression.left_out.T, strict=True)
                ]
            ),
        )


def _error(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Root of the mean squared difference over mixtures."""
    return np.sqrt(((measured - predicted) ** 2).mean(axis=0))
