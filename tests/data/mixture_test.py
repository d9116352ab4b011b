import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.chairman import assign_rows
from seallm_jax.data.mixture import base_shares, fill, resolve_mixture
from seallm_jax.data.source import Source

SOURCES = [
    Source("text/en", 900),
    Source("text/km", 300),
    Source("text/lo", 40),
    Source("text/ban", 3),
    Source("instructions/vi", 20),
]
T = 8


def stage(rows, **values):
    return StageConfig(**{"tokens": rows * T, **values})


def resolve(*stages, sources=SOURCES, batch_rows=1):
    return resolve_mixture(stages, sources, sequence_length=T, batch_rows=batch_rows)


def quotas(schedule, start, stop):
    return (schedule.quotas(stop) - schedule.quotas(start)) / schedule.scale


def test_proportional_temperature_and_uniform_shares():
    sizes = np.array([source.rows for source in SOURCES])
    np.testing.assert_allclose(base_shares(stage(9), SOURCES)[0], sizes / sizes.sum())
    shares, _ = base_shares(stage(9, mixture="temperature", alpha=0.3), SOURCES)
    np.testing.assert_allclose(shares, sizes**0.3 / (sizes**0.3).sum())
    shares, _ = base_shares(stage(9, mixture="temperature", alpha=0.0), SOURCES)
    np.testing.assert_allclose(shares, 0.2)


def test_explicit_keys_name_sources_patterns_or_lists_and_the_most_specific_one_wins():
    weights = {"*": 0.1, "text/*": 0.3, "text/km": 0.2, "text/lo, text/ban": 0.4}
    shares, notes = base_shares(stage(9, mixture="explicit", weights=weights, alpha=0.5), SOURCES)
    small = np.sqrt([40, 3])
    np.testing.assert_allclose(shares, [0.3, 0.2, *(0.4 * small / small.sum()), 0.1])
    assert notes == []


def test_group_uniform_ignores_sizes_within_a_key():
    weights = {"text/en, text/km": 0.8, "text/*": 0.15, "instructions/*": 0.05}
    shares, _ = base_shares(stage(9, mixture="group_uniform", weights=weights), SOURCES)
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.075, 0.075, 0.05])


def test_the_share_of_a_key_without_sources_is_spread_over_the_others_and_said_so():
    weights = {"text/en": 0.6, "text/km": 0.2, "text/xx": 0.2}
    shares, notes = base_shares(stage(9, mixture="explicit", weights=weights), SOURCES)
    np.testing.assert_allclose(shares, [0.75, 0.25, 0, 0, 0])
    assert "text/xx matches no source" in notes[0] and "0.2" in notes[0]


def test_unimax_is_what_the_paper_computes():
    """Algorithm 1 of arXiv 2304.09151, written down anew."""
    budget, epochs = 1000.0, 4
    remaining, expected = budget, {}
    order = sorted(range(len(SOURCES)), key=lambda i: SOURCES[i].rows)
    for position, i in enumerate(order):
        expected[i] = min(remaining / (len(SOURCES) - position), epochs * SOURCES[i].rows)
        remaining -= expected[i]
    schedule, plans = resolve(stage(1000, mixture="unimax", maximum_epochs=epochs))
    np.testing.assert_allclose(quotas(schedule, 0, 1000), [expected[i] for i in range(5)], rtol=1e-6)
    assert any("text/ban is capped at 4 epochs" in note for note in plans[0].notes)


def test_fill_redistributes_in_proportion_and_reports_exhaustion():
    shares, capped = fill([0.5, 0.3, 0.2], [0.1, 1.0, 1.0])
    np.testing.assert_allclose(shares, [0.1, 0.54, 0.36])
    assert capped == {0}
    shares, capped = fill([0.5, 0.3, 0.2], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3])
    assert capped == {0, 1, 2}


def test_caps_hold_over_the_whole_curriculum_not_per_stage():
    one = stage(100, mixture="explicit", weights={"text/lo": 0.5, "text/en": 0.5}, maximum_epochs=2)
    schedule, plans = resolve(one, one)
    np.testing.assert_allclose(quotas(schedule, 0, 100)[[0, 2]], [50, 50])
    np.testing.assert_allclose(quotas(schedule, 100, 200)[[0, 2]], [70, 30], atol=1e-9)
    assert plans[0].notes == ()
    assert "text/lo is capped at 2 epochs: 20.00% of the stage's tokens" in plans[1].notes[0]


def test_when_all_sources_are_exhausted_the_budget_shrinks_to_exactly_their_rows():
    schedule, plans = resolve(stage(10_000, maximum_epochs=2))
    assert schedule.rows == 2 * sum(source.rows for source in SOURCES)
    assert [int(q) for q in schedule.quotas(schedule.rows)] == [2 * s.rows * schedule.scale for s in SOURCES]
    assert "the budget shrank from 80000 to 20208 tokens" in plans[0].notes[0]
    order = assign_rows(schedule)
    assert np.bincount(order).tolist() == [2 * source.rows for source in SOURCES]


def test_a_stage_whose_sources_are_exhausted_before_it_begins_is_empty():
    first = stage(100, mixture="explicit", weights={"text/ban": 1.0}, maximum_epochs=3)
    schedule, plans = resolve(first, first, stage(50))
    assert [(plan.start, plan.stop) for plan in plans] == [(0, 9), (9, 9), (9, 59)]
    assert "shrank from 800 to 0 tokens" in plans[1].notes[0]


@pytest.mark.parametrize(
    ("transition", "curve"), [("linear", lambda x: x), ("cosine", lambda x: (1 - math.cos(math.pi * x)) / 2)]
)
def test_transitions_follow_their_curve(transition, curve):
    before = stage(100, mixture="explicit", weights={"text/en": 1.0})
    after = stage(400, mixture="explicit", weights={"text/km": 1.0}, transition=transition, transition_tokens=200 * T)
    schedule, _ = resolve(before, after, batch_rows=4)
    for row in range(100, 300):
        block = (row - 100) // 4
        share = schedule.weights_at(row)[1] / schedule.scale
        assert share == pytest.approx(curve((block + 0.5) / 50), abs=1e-9)
    assert schedule.weights_at(300).tolist() == [0, schedule.scale, 0, 0, 0]
    np.testing.assert_allclose(quotas(schedule, 100, 300)[:2], [100, 100], rtol=1e-6)


def test_a_long_transition_has_a_bounded_number_of_blocks():
    after = stage(9000, mixture="unimax", transition="linear", transition_tokens=9000 * T)
    schedule, _ = resolve(stage(10), after)
    assert len(schedule.weights) == 1 + 256


def test_a_transition_before_the_first_stage_is_left_out_and_said_so():
    _, plans = resolve(stage(50, transition="linear", transition_tokens=40 * T))
    assert "no stage comes before" in plans[0].notes[0]


def test_stage_ends_are_rounded_down_together_and_the_whole_to_batches():
    stages = [StageConfig(name=name, tokens=T * 10 + 5) for name in "abc"]
    schedule, plans = resolve(*stages, batch_rows=4)
    assert [(plan.start, plan.stop) for plan in plans] == [(0, 10), (10, 21), (21, 28)]
    assert schedule.rows == 28


@pytest.mark.parametrize(
    ("stages", "sources", "message"),
    [
        ((), SOURCES, "no stages"),
        ((stage(9),), [Source("text/en", 0)], "no source has a row of 8 tokens"),
        ((StageConfig(name="tiny", tokens=7),), SOURCES, "'tiny' has 7 tokens, less than one row of 8"),
        ((stage(3),), SOURCES, "less than one batch of 4 rows"),
        (
            (stage(9, mixture="explicit", weights={"text/xx": 1.0}),),
            SOURCES,
            "text/xx matches no source with rows; there are text/en,",
        ),
        ((stage(9, mixture="explicit", weights={"text/en": 0.0}),), SOURCES, "(no positive weight)"),
        ((stage(9, mixture="unimax", weights={"text/en": 1.0}),), SOURCES, "a unimax mixture does not use"),
    ],
)
def test_errors_name_the_stage_and_the_way_out(stages, sources, message):
    with pytest.raises(SeallmError) as error:
        resolve(*stages, sources=sources, batch_rows=4)
    assert message in str(error.value) and "\n" not in str(error.value)


stages_strategy = st.lists(
    st.builds(
        lambda rows, mixture, weights, alpha, epochs, transition, part, replay: stage(
            rows,
            mixture=mixture,
            weights=weights if mixture in ("explicit", "group_uniform") else {},
            alpha=alpha,
            maximum_epochs=epochs,
            transition=transition,
            transition_tokens=int(rows * part) * T,
            replay=replay,
        ),
        st.sampled_from([5, 20, 133, 400]),
        st.sampled_from(["explicit", "group_uniform", "proportional", "temperature", "unimax"]),
        st.dictionaries(
            st.sampled_from(["text/en", "text/km", "text/lo,text/ban", "text/*", "instructions/*", "foo/*"]),
            st.sampled_from([1e-6, 0.001, 0.3, 1.0]),
            min_size=1,
        ),
        st.sampled_from([0.0, 0.3, 1.0]),
        st.sampled_from([0.0, 0.5, 1.0, 3.7]),
        st.sampled_from(["step", "linear", "cosine"]),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from([0.0, 0.3]),
    ),
    min_size=1,
    max_size=4,
)


@given(stages_strategy, st.sampled_from([1, 7, 16]))
@settings(max_examples=120, deadline=None)
def test_no_source_is_served_above_its_cap_whatever_the_stages(stages, batch_rows):
    try:
        schedule, plans = resolve(*stages, batch_rows=batch_rows)
    except SeallmError:
        return
    order = assign_rows(schedule)
    assert schedule.rows % batch_rows == 0
    for config, plan in zip(stages, plans, strict=True):
        for index, source in enumerate(SOURCES):
            before, after = ((order[:end] == index).sum() for end in (plan.start, plan.stop))
            if config.maximum_epochs:
                assert after <= max(math.floor(config.maximum_epochs * source.rows), before)
    for plan, following in itertools.pairwise(plans):
        assert plan.stop == following.start
