"""The search on losses that are known as functions of the mixture, so that the best mixture is known, too."""

import numpy as np
import pytest
import scipy.optimize

from seallm_jax.data.mixture_proposal import MixtureProposal
from seallm_jax.data.mixture_sampler import MixtureSampler

SIZES = np.array([4000, 900, 500, 120, 60, 30], float)
SAMPLER = MixtureSampler.of_sizes(SIZES, budget=1500, maximum_epochs=15, alpha=0.5, floor=2e-4)


def power_law(shares):
    """Powers, different ones, of the text that a language has an effect of: its own and its neighbours'."""
    transfer = np.eye(6) + 0.25 * np.eye(6, k=1) + 0.1 * np.eye(6, k=-1)
    level, gain = np.array([1.0, 1.4, 1.2, 2.0, 1.7, 2.2]), np.array([0.10, 0.12, 0.09, 0.16, 0.14, 0.20])
    return level * (0.02 + shares @ transfer.T) ** -gain


def mixing_law(shares):
    """Constants and exponentials of sums (arXiv 2403.16952), which no form of the regression is."""
    slopes = np.random.default_rng(1).uniform(-1, 0.2, (6, 6)) - 2 * np.eye(6)
    return np.array([0.5, 0.6, 0.45, 0.75, 0.65, 0.8]) + 0.8 * np.exp(shares @ slopes.T)


def best_mixture(losses, weights):
    """By scipy, within the limits."""
    found = scipy.optimize.minimize(
        lambda shares: losses(shares) @ weights / weights.sum(),
        SAMPLER.centre,
        bounds=[(2e-4, limit) for limit in np.minimum(SAMPLER.limits, 1)],
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
    )
    assert found.success
    return found.x


@pytest.mark.parametrize("losses", [power_law, mixing_law])
@pytest.mark.parametrize(("noise", "weights"), [(0.0, (1,) * 6), (0.005, (1,) * 6), (0.005, (0, 0, 1, 1, 3, 5))])
def test_the_proposal_is_close_to_the_optimum_and_better_than_what_was_tried(losses, noise, weights):
    rng, weights = np.random.default_rng(2), np.array(weights, float)
    shares = np.concatenate([SAMPLER.draw(24, strength, rng) for strength in (0.3, 1, 3)])
    measured = losses(shares) * np.exp(noise * rng.normal(size=(72, 6)))
    proposal = MixtureProposal.of(shares, measured, weights, SAMPLER)

    def truth(mixture):
        return float(losses(mixture) @ weights / weights.sum())

    uniform, proportional = np.full(6, 1 / 6), SIZES / SIZES.sum()
    found, optimum = truth(proposal.shares), truth(best_mixture(losses, weights))
    tried = truth(shares[np.argmin(measured @ weights)])
    assert found < min(truth(uniform), truth(proportional), tried)
    assert found - optimum < 0.1 * (truth(SAMPLER.centre) - optimum)
    np.testing.assert_allclose(SAMPLER.allowed(proposal.shares), proposal.shares, atol=1e-3)
    assert abs(proposal.objective - found) < 0.02 * found  # what wins a search is predicted too well
    assert proposal.spearman > 0.9 and proposal.r_squared > 0.8
    assert proposal.by_language.shape == (6, 2) and proposal.wins.shape == (72,)
    assert proposal.wins.mean() > 0.95


def test_noise_is_not_trusted():
    rng = np.random.default_rng(5)
    shares = SAMPLER.draw(40, 1.0, rng)
    proposal = MixtureProposal.of(shares, np.exp(0.1 * rng.normal(size=(40, 6))), np.ones(6), SAMPLER)
    assert proposal.spearman < 0.4 and proposal.r_squared < 0.2


def test_the_mean_of_logarithms_weighs_percents_alike():
    rng = np.random.default_rng(6)
    shares = SAMPLER.draw(60, 1.0, rng)
    scale = np.array([1, 1, 1, 1, 1, 100.0])  # the last language has long characters
    plain = MixtureProposal.of(shares, power_law(shares) * scale, np.ones(6), SAMPLER)
    log = MixtureProposal.of(shares, power_law(shares) * scale, np.ones(6), SAMPLER, log=True)
    unscaled = MixtureProposal.of(shares, power_law(shares), np.ones(6), SAMPLER, log=True)
    np.testing.assert_allclose(log.shares, unscaled.shares, atol=1e-9)
    assert plain.shares[5] > log.shares[5]
