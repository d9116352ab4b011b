from __future__ import annotations

import dataclasses
import json

import pytest

from seallm_jax.core.config import build
from seallm_jax.core.model_config import ModelConfig, RopeConfig, stored_model

MODEL = ModelConfig(
    family="gemma3",
    rope=RopeConfig("linear", theta=1e6, factor=8.0),
    local_rope=RopeConfig(),
    sliding_window=512,
    local_layers=(True, True, True, False),
)


@pytest.mark.parametrize("model", [MODEL, ModelConfig()], ids=["gemma3", "llama"])
def test_what_a_run_records_is_read_back(model):
    recorded = json.loads(json.dumps(dataclasses.asdict(model)))
    assert build(ModelConfig, stored_model(recorded), "model") == model


def test_models_of_older_runs_are_read():
    recorded = {"vocabulary_size": 100, "hidden_size": 64, "norm_epsilon": 1e-6, "rope_theta": 5e5}
    expected = ModelConfig(vocabulary_size=100, hidden_size=64, norm_epsilon=1e-6, rope=RopeConfig(theta=5e5))
    assert build(ModelConfig, stored_model(recorded), "model") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_layers": (True,)}, "local_layers is .*; it must have an entry for each of the 4 layers"),
        ({"sliding_window": 0}, "sliding_window is 0; local_layers need one"),
        ({"head_size": 63}, "head_size is 63; it must be even for rotary positions"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3; it must divide num_heads = 4"),
        ({"logit_soft_cap": -1.0}, "logit_soft_cap is -1.0; it must not be negative"),
        ({"num_layers": 0}, "num_layers is 0; it must be positive"),
    ],
)
def test_impossible_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MODEL, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": 1.0}, "theta is 1.0; it must be larger than 1"),
        ({"factor": 0.0}, "factor is 0.0; it must be positive"),
        ({"beta_slow": -1.0}, "beta_slow is -1.0; it must be positive"),
        ({"low_frequency_factor": 4.0}, "low_frequency_factor is 4.0; it must be smaller than high_frequency_factor"),
    ],
)
def test_impossible_rotary_positions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RopeConfig(**change)
