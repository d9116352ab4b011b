"""The watchdog ends what takes too long, once, and nothing else."""

from __future__ import annotations

import threading
import time

import pytest

from seallm_jax.training.watchdog import Watchdog


@pytest.fixture
def ended():
    """Reasons, and an event that is set with the first."""
    reasons, event = [], threading.Event()

    def end(reason):
        reasons.append(reason)
        event.set()

    return reasons, event, end


def test_it_ends_what_takes_too_long(ended):
    reasons, event, end = ended
    begin = time.monotonic()
    with Watchdog(interval=0.01, end=end) as watchdog, watchdog.limit("the test", 0.1):
        assert event.wait(20)
    assert time.monotonic() - begin >= 0.1
    assert reasons == ["the test took more than 0 seconds"]


@pytest.mark.parametrize("extended", [False, True])
def test_an_extension_counts(ended, extended):
    reasons, event, end = ended
    with Watchdog(interval=0.01, end=end) as watchdog, watchdog.limit("the test", 0.05):
        if extended:
            watchdog.extend(1000)
        assert event.wait(0.3 if extended else 20) != extended
    assert bool(reasons) != extended


def test_it_looks_inside_limits_only_and_each_begins_anew(ended):
    reasons, event, end = ended
    with Watchdog(interval=0.01, end=end) as watchdog:
        for _ in range(6):
            with watchdog.limit("short", 0.5):
                time.sleep(0.1)
        with watchdog.limit("unlimited", 0):
            watchdog.extend(0.01)
            time.sleep(0.2)
        time.sleep(0.1)
    assert reasons == [] and not event.is_set()


def test_time_in_which_the_process_itself_stood_still_does_not_count(ended, monkeypatch):
    reasons, event, end = ended
    real, leap = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + leap[0])
    with Watchdog(interval=0.01, end=end) as watchdog, watchdog.limit("the test", 5):
        leap[0] = 1e6
        assert not event.wait(0.2)
    assert reasons == []
