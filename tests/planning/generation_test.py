"""Generation compiled for a real TPU slice, and its arithmetic."""

from __future__ import annotations

import dataclasses

import pytest

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import GenerationConfig, MeshConfig, ModelConfig
from seallm_jax.planning.generation import GenerationPlan, plan_generation
from tests.planning.plans import step_time

MODEL = ModelConfig(vocabulary_size=500, padded_vocabulary_size=512, num_layers=2, num_key_value_heads=2)
SETTINGS = GenerationConfig(maximum_new_tokens=32, compute_dtype="bfloat16")


def test_compiled_for_a_slice():
    pytest.importorskip("libtpu")
    plan = plan_generation(MODEL, SETTINGS, MeshConfig(), "v5e:2x2", rows=8, positions=96)
    assert plan.fits and plan.exceeds_bytes == 0 and plan.needed_bytes is None
    # keys and values of 2 layers, 8 rows, 128 + 32 slots, 2 heads of 64 values of 2 bytes, and int32 ids and positions
    whole = 2 * 2 * 8 * 160 * 2 * 64 * 2
    assert whole // 4 <= plan.cache_bytes <= 1.1 * whole
    assert plan.temporary_bytes >= whole // 4 and plan.peak_bytes > plan.parameter_bytes
    if not plan.time_missing:  # a version of JAX that can read the program
        assert plan.prefill is not None and plan.decode is not None and plan.tokens_per_second is not None
        assert plan.decode.seconds > 0 and plan.prefill.seconds > 0
        expected = 8 * 32 / (plan.prefill.seconds + 31 * plan.decode.seconds)
        assert plan.tokens_per_second == pytest.approx(expected)


def test_without_times_there_is_no_speed():
    sizes = {field.name: 0 for field in dataclasses.fields(GenerationPlan)}
    texts = {"topology": "v5e:2x2", "mesh": {}, "time_missing": "why"}
    plan = GenerationPlan(**sizes | texts | {"fits": True, "rows": 4, "new_tokens": 3, "prefill": None, "decode": None})
    assert plan.tokens_per_second is None
    assert plan.to_json()["tokens_per_second"] is None
    timed = dataclasses.replace(plan, prefill=step_time(1.0), decode=step_time(0.5))
    assert timed.tokens_per_second == pytest.approx(4 * 3 / 2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "0 prompts of 96 tokens; both must be positive"),
        ({"positions": 2040}, "prompts of 2040 tokens and 32 new ones exceed the model's 2048 positions"),
        ({"topology": "v9:1"}, "topology 'v9:1' is not known"),
    ],
)
def test_mistakes(changes, message):
    values = {"topology": "v5e:2x2", "rows": 8, "positions": 96} | changes
    with pytest.raises(UsageError, match=message):
        plan_generation(MODEL, SETTINGS, MeshConfig(), values.pop("topology"), **values)
