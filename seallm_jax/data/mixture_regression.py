"""Losses by language as a function of the mixture, from a few dozen measured ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

SHIFTS = (0.001, 0.01, 0.1)
POWERS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-10, 5))


@dataclasses.dataclass(frozen=True)
class Form:
    """What is linear in what: a function of a loss in a function of the shares."""

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    target: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[np.ndarray], np.ndarray]  # the inverse of `target`


def _log_of_shares(shift: float) -> Form:
    return Form(f"log loss in log(share + {shift})", lambda shares: np.log(shares + shift), np.log, np.exp)


def _power_law(power: float) -> Form:
    """The loss as a power of a sum over the sources, each with the use that it is of: loss ** -power is that sum."""
    return Form(
        f"loss^-{power:g} in shares",
        lambda shares: shares,
        lambda losses: losses**-power,
        lambda values: values ** (-1 / power),
    )


FORMS = (
    Form("log loss in shares", lambda shares: shares, np.log, np.exp),
    *map(_log_of_shares, SHIFTS),
    *map(_power_law, POWERS),
)


@dataclasses.dataclass(frozen=True)
class MixtureRegression:
    """Ridge regressions, one a language.

    Form and penalty are those with the least error of predictions that leave out the mixture which they are for; these
    come in closed form, without another fit. No loss is predicted below half or above twice the measured ones.

    Attributes:
      left_out: float64 [N, L], predicted losses of each mixture from the others.
      forms: name of each language's form.
    """

    left_out: np.ndarray
    forms: tuple[str, ...]
    _fits: tuple[_Ridge, ...]

    @classmethod
    def fit(cls, shares: np.ndarray, losses: np.ndarray) -> MixtureRegression:
        """From shares [N, K] and positive losses [N, L]."""
        chosen = []
        for measured in losses.T:
            fits = [_Ridge.fit(shares, measured, form, penalty) for form in FORMS for penalty in PENALTIES]
            errors = [np.mean((np.log(fit.left_out) - np.log(measured)) ** 2) for fit in fits]
            chosen.append(fits[int(np.argmin(errors))])
        return cls._of(chosen)

    def refit(self, shares: np.ndarray, losses: np.ndarray) -> MixtureRegression:
        """The same forms and penalties on other data."""
        pairs = zip(self._fits, losses.T, strict=True)
        return self._of([_Ridge.fit(shares, measured, fit.form, fit.penalty) for fit, measured in pairs])

    def predict(self, shares: np.ndarray) -> np.ndarray:
        """Losses [..., L] of shares [..., K]."""
        return np.stack([fit.predict(shares) for fit in self._fits], axis=-1)

    @classmethod
    def _of(cls, fits: list[_Ridge]) -> MixtureRegression:
        return cls(np.stack([f.left_out for f in fits], axis=1), tuple(f.form.name for f in fits), tuple(fits))


@dataclasses.dataclass(frozen=True)
class _Ridge:
    """One language's fit, of standardised features; the penalty is a share of the number of mixtures."""

    form: Form
    penalty: float
    left_out: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    intercept: float
    coefficients: np.ndarray
    limits: tuple[float, float]  # of the losses

    @classmethod
    def fit(cls, shares: np.ndarray, losses: np.ndarray, form: Form, penalty: float) -> _Ridge:
        targets, features = form.target(losses), form.features(shares)
        mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
        X, intercept = (features - mean) / scale, float(targets.mean())
        n, k = X.shape
        inverse = np.linalg.inv(X.T @ X + penalty * n * np.eye(k))
        coefficients = inverse @ X.T @ (targets - intercept)
        leverage = 1 / n + np.einsum("nk,kj,nj->n", X, inverse, X)
        residuals = targets - intercept - X @ coefficients
        limits = (float(losses.min()) / 2, float(losses.max()) * 2)
        left_out = _loss(form, targets - residuals / np.maximum(1 - leverage, 1e-6), limits)
        return cls(form, penalty, left_out, mean, scale, intercept, coefficients, limits)

    def predict(self, shares: np.ndarray) -> np.ndarray:
        features = (self.form.features(np.asarray(shares)) - self.mean) / self.scale
        return _loss(self.form, features @ self.coefficients + self.intercept, self.limits)


def _loss(form: Form, values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Losses of targets; those outside the limits, where a power law may not even be defined, are at them."""
    return form.loss(np.clip(values, *sorted(form.target(np.array(limits)).tolist())))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; 0 where one of them does not vary."""
    ranks = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in (one, other)]
    middles = [(np.cumsum(counts) - (counts - 1) / 2)[places] for places, counts in ranks]  # ties share their mean
    deviations = [middle - middle.mean() for middle in middles]
    norm = np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum())
    return float(deviations[0] @ deviations[1] / norm) if norm else 0.0


def r_squared(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance that predictions explain; negative where the mean would have been better."""
    spread = ((measured - measured.mean()) ** 2).sum()
    return float(1 - ((measured - predicted) ** 2).sum() / spread) if spread else 0.0
