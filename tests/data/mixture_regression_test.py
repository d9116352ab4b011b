"""Left-out predictions by fits that leave out, ranks against scipy, forms on losses that are made of them."""

import numpy as np
import pytest
import scipy.stats

from seallm_jax.data.mixture_regression import FORMS, MixtureRegression, _Ridge, r_squared, spearman

BY_NAME = {form.name: form for form in FORMS}


@pytest.fixture(scope="module")
def shares():
    return np.random.default_rng(3).dirichlet(np.ones(5), 40)


def power_law(shares):
    return 1.3 * (0.1 + shares @ [1.0, 0.3, 0.0, 0.1, 0.0]) ** -0.2


@pytest.mark.parametrize("name", ["log loss in shares", "log loss in log(share + 0.01)", "loss^-5 in shares"])
def test_left_out_predictions_are_those_of_fits_without_the_mixture(shares, name):
    losses = power_law(shares) * np.exp(0.02 * np.random.default_rng(0).normal(size=40))
    form, penalty = BY_NAME[name], 1e-3
    whole = _Ridge.fit(shares, losses, form, penalty)
    features = form.features(shares)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    for left in (0, 17, 39):
        rest = np.arange(40) != left
        X = np.column_stack([np.ones(39), scaled[rest]])
        penalties = np.diag([0.0] + [penalty * 40] * 5)  # the intercept goes free
        beta = np.linalg.solve(X.T @ X + penalties, X.T @ form.target(losses[rest]))
        assert form.loss(np.array([1, *scaled[left]]) @ beta) == pytest.approx(whole.left_out[left], rel=1e-9)


def test_the_form_that_made_the_losses_is_found(shares):
    noise = np.exp(0.003 * np.random.default_rng(0).normal(size=40))
    curves = {
        "loss^-5 in shares": power_law,
        "log loss in log(share + 0.01)": lambda shares: np.exp(0.8 - 0.15 * np.log(shares[:, 0] + 0.01)),
        "log loss in shares": lambda shares: np.exp(1 - 0.9 * shares[:, 1] + 0.2 * shares[:, 2]),
    }
    losses = np.stack([curve(shares) * noise for curve in curves.values()], axis=1)
    fit = MixtureRegression.fit(shares, losses)
    assert fit.forms[:2] == tuple(curves)[:2]
    test = np.random.default_rng(4).dirichlet(np.ones(5), 200)
    truth = np.stack([curve(test) for curve in curves.values()], axis=1)
    np.testing.assert_allclose(fit.predict(test), truth, rtol=0.02)
    np.testing.assert_allclose(fit.predict(shares), fit.refit(shares, losses).predict(shares))


def test_predictions_stay_near_what_was_measured(shares):
    narrow = 0.2 + 0.001 * shares
    losses = power_law(narrow)[:, None]
    far = MixtureRegression.fit(narrow, losses).predict(np.array([[50.0, 0, 0, 0, 0], [-50.0, 0, 0, 0, 0]]))
    assert losses.min() / 2 <= far.min() and far.max() <= losses.max() * 2 + 1e-12 and np.isfinite(far).all()


def test_correlations():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, 60), rng.normal(size=60)
    assert spearman(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert spearman(np.ones(5), other[:5]) == 0
    assert r_squared(other, other) == 1 and r_squared(other, np.full(60, other.mean())) == pytest.approx(0)
