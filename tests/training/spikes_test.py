from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np

from seallm_jax.training.spikes import NEAR, WINDOW, SpikeWatch


@hypothesis.given(st.lists(st.floats(0, 10), min_size=NEAR + 1, max_size=2 * WINDOW), st.floats(1, 5))
def test_a_spike_is_above_the_mean_of_the_losses_before(losses, threshold):
    watch, since = SpikeWatch(threshold), 0
    for number, loss in enumerate(losses):
        before = np.array(losses[since:number][-WINDOW:])
        bound = np.inf
        if len(before) >= NEAR:
            bound = before[-NEAR:].mean() + threshold * np.linalg.norm(before[1:] - before[:-1]) / np.sqrt(
                len(before) - 1
            )
        if abs(loss - bound) < 1e-9:
            return  # rounding decides
        assert watch.is_spike(loss) == (loss > bound)
        if loss > bound:
            since = number + 1


def test_a_fast_fall_hides_nothing():
    watch = SpikeWatch(10.0)
    falling = [4 * 0.95**step for step in range(40)]
    assert not any(map(watch.is_spike, falling))
    assert not watch.is_spike(float("nan")) and watch.is_spike(falling[10])


def test_a_watch_that_goes_on_says_the_same():
    losses = [*np.random.default_rng(0).normal(3, 0.1, 60), 9.0]
    whole, first = SpikeWatch(10.0), SpikeWatch(10.0)
    expected = [whole.is_spike(loss) for loss in losses]
    found = [first.is_spike(loss) for loss in losses[:30]]
    second = SpikeWatch(10.0, first.state())
    assert found + [second.is_spike(loss) for loss in losses[30:]] == expected and expected[-1] and sum(expected) == 1


def test_without_a_bound_nothing_is_a_spike():
    watch = SpikeWatch(0.0)
    assert not any(watch.is_spike(loss) for loss in [1.0] * 50 + [1e9]) and watch.state() == []
