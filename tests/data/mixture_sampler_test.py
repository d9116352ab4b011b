import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.mixture import fill
from seallm_jax.data.mixture_sampler import MixtureSampler


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.02, 2)), min_size=2, max_size=9),
    st.floats(0.05, 20),
    st.sampled_from([0.0, 2e-4, 0.01]),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_draws_are_allowed(sources, strength, floor, seed):
    centre, limits = np.array(sources).T
    limits = limits / min(limits.sum(), 1.0)
    sampler = MixtureSampler(centre / centre.sum(), limits, floor)
    shares = sampler.draw(50, strength, np.random.default_rng(seed))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-9)
    assert (shares <= limits * (1 + 1e-9)).all()
    assert (shares >= np.minimum(floor / (1 + floor * len(sources)), limits) * (1 - 1e-9)).all()
    np.testing.assert_allclose(sampler.allowed(shares[0]), shares[0], atol=2 * floor)  # nothing left to do


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.05, 2)), min_size=2, max_size=9))
@settings(max_examples=200, deadline=None)
def test_limits_are_filled_as_the_curriculums_caps(sources):
    shares, limits = np.array(sources).T
    shares, limits = shares / shares.sum(), limits / min(limits.sum(), 1.0)
    expected, _ = fill(shares.tolist(), limits.tolist())
    np.testing.assert_allclose(MixtureSampler(shares, limits).allowed(shares), expected, atol=1e-9)


def test_strength_brings_draws_to_the_centre():
    sampler = MixtureSampler.of_sizes(np.array([900, 100, 100]), budget=10, maximum_epochs=1, alpha=0.5, floor=0)
    np.testing.assert_allclose(sampler.centre, [0.6, 0.2, 0.2])
    rng = np.random.default_rng(0)
    spread = [sampler.draw(4000, strength, rng).std(axis=0).mean() for strength in (0.1, 1, 10, 100)]
    assert spread[0] > spread[1] > spread[2] > spread[3]
    np.testing.assert_allclose(sampler.draw(40_000, 1.0, rng).mean(axis=0), sampler.centre, atol=0.01)


def test_limits_are_epochs_within_the_budget():
    sampler = MixtureSampler.of_sizes(np.array([500, 20]), budget=1000, maximum_epochs=4, alpha=1, floor=0)
    np.testing.assert_allclose(sampler.limits, [2.0, 0.08])
    assert sampler.draw(500, 1.0, np.random.default_rng(0))[:, 1].max() <= 0.08 + 1e-12
    with pytest.raises(SeallmError, match="fill 52% of the budget; raise search.maximum_epochs or lower the budget"):
        MixtureSampler.of_sizes(np.array([500, 20]), budget=1000, maximum_epochs=1, alpha=1, floor=0)
    with pytest.raises(SeallmError, match="search.floor = 0.5 leaves nothing to choose among 2 sources"):
        MixtureSampler.of_sizes(np.array([500, 20]), budget=10, maximum_epochs=1, alpha=1, floor=0.5)
