"""The mixtures of published systems as configurations; what is asserted is what they report, no value is ours."""

import numpy as np
import pytest

from seallm_jax.core.schema import StageConfig
from seallm_jax.data.mixture import resolve_mixture
from seallm_jax.data.source import Source

BILLION = 10**9
T = 4096
HIGH_RESOURCE, LOW_RESOURCE = "ar de es fr ko ja pt tr", "bn he id it ms nl pl ru th uk ur vi cs el hu kk ro az ne"


def tokens_by_source(stages, sources):
    """Source -> billions of tokens of each stage."""
    schedule, plans = resolve_mixture(stages, sources, sequence_length=T, batch_rows=1024)
    edges = [0, *(plan.stop for plan in plans)]
    totals = np.array([schedule.quotas(edge) for edge in edges]) / schedule.scale * T / BILLION
    return {source.name: part for source, part in zip(sources, np.diff(totals, axis=0).T, strict=True)}


def sources(*names, tokens=10**13):
    return [Source(name, tokens // T) for name in names]


def test_marco():
    """arXiv 2412.04003: two stages whose weights are shared equally within the group, whatever its languages' sizes."""
    high, low = HIGH_RESOURCE.split(), LOW_RESOURCE.split()

    def stage(tokens, learning_rate, *shares):
        keys = ("text/en", "text/zh", _listed(high), "text/*", "parallel/*", "knowledge/*", "synthetic/*")
        weights = dict(zip(keys, shares, strict=True))
        return StageConfig(tokens=tokens, mixture="group_uniform", weights=weights, learning_rate=learning_rate)

    stages = [
        stage(160 * BILLION, 1e-5, 0.32, 0.17, 0.30, 0.09, 0.06, 0.05, 0.01),
        stage(140 * BILLION, 6e-6, 0.28, 0.15, 0.26, 0.15, 0.08, 0.06, 0.02),
    ]
    names = [f"text/{code}" for code in ("en", "zh", *high, *low)]
    found = tokens_by_source(stages, sources(*names, "parallel/en-th", "knowledge/en", "synthetic/en"))
    used = {name: part.sum() for name, part in found.items()}
    reported = {"text/en": 90.4, "text/zh": 48.2, "parallel/en-th": 20.8, "knowledge/en": 16.4, "synthetic/en": 4.4}
    reported |= {f"text/{code}": 10.6 for code in high}
    for name, billions in reported.items():
        assert used[name] == pytest.approx(billions, abs=0.06), name
    assert {round(used[f"text/{code}"], 1) for code in low} == {1.9}


def test_sailor():
    """arXiv 2404.03608: one stage with a share for each language."""
    shares = {"id": 51.56, "ms": 7.91, "th": 38.24, "vi": 41.50, "lo": 0.34, "en": 37.2, "zh": 22.64}
    weights = {f"text/{code}": share for code, share in shares.items()}
    stage = StageConfig(tokens=round(sum(shares.values()) * BILLION), mixture="explicit", weights=weights)
    found = tokens_by_source([stage], sources(*weights))
    for name, billions in weights.items():
        assert found[name][0] == pytest.approx(billions, rel=1e-4)


def test_sailor2():
    """arXiv 2502.12982: then a sixth is replay, 2.5 of 60 billion are English instructions, the rest is the best text
    of the region, with languages that are new; a lower rate and four times the batch."""
    first = {"vi": 102, "id": 94, "th": 92, "en": 51, "zh": 50, "my": 23.5, "ms": 21, "tl": 10, "km": 6.5}
    new = ("ceb", "lo", "jv", "war", "su", "ilo")
    stages = [
        StageConfig(
            tokens=450 * BILLION,
            mixture="explicit",
            weights={f"text/{code}": billions for code, billions in first.items()},
            learning_rate=1e-4,
            batch_rows=1024,
        ),
        StageConfig(
            tokens=60 * BILLION,
            mixture="explicit",
            replay=10 / 60,
            weights={"instructions/en": 2.5, "text-high/*": 47.5},
            learning_rate=1e-5,
            batch_rows=4096,
        ),
    ]
    best = [f"text-high/{code}" for code in ("vi", "th", "my", *new)]
    found = tokens_by_source(stages, sources(*(f"text/{code}" for code in first), "instructions/en", *best))
    for code, billions in first.items():
        assert found[f"text/{code}"][0] == pytest.approx(billions, rel=1e-4)
        assert found[f"text/{code}"][1] == pytest.approx(billions * 10 / 450, rel=1e-3)
    assert found["instructions/en"] == pytest.approx([0, 2.5], rel=1e-3)
    assert sum(found[name] for name in best) == pytest.approx([0, 47.5], rel=1e-3)
    assert all(found[f"text-high/{code}"][1] > 0 for code in new)


def test_the_best_text_is_read_again_at_the_end():
    """As SeaLLM's last steps (arXiv 2312.00738): a band is part of the text before, and alone at the end."""
    text = [Source("text/km", 900), Source("text-high/km", 100), Source("text/en", 3000)]
    stages = [
        StageConfig(tokens=1000 * T, mixture="explicit", weights={"text*/km": 0.5, "text*/*": 0.5}),
        StageConfig(tokens=200 * T, mixture="explicit", weights={"text-high/*": 1.0}, maximum_epochs=2),
    ]
    schedule, plans = resolve_mixture(stages, text, sequence_length=T, batch_rows=1)
    once, twice = (np.array(schedule.quotas(plan.stop)) / schedule.scale for plan in plans)
    np.testing.assert_allclose(once, [450, 50, 500], atol=1e-6)  # the band has its part of the language
    np.testing.assert_allclose(twice, [450, 200, 500], atol=1e-6)  # the cap counts both readings
    assert "the budget shrank from 819200 to 614400 tokens" in plans[1].notes[0]


def test_replay_needs_a_stage_before():
    _, plans = resolve_mixture(
        [StageConfig(tokens=9 * T, replay=0.5)], sources("text/en"), sequence_length=T, batch_rows=1
    )
    assert "nothing to replay" in plans[0].notes[0]


def _listed(codes):
    return ",".join(f"text/{code}" for code in codes)
