from __future__ import annotations

import pytest
from hypothesis import given, settings
from random_models import rope_values

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import RopeConfig
from seallm_jax.models.families.rope import read_rope, write_rope


def read(parameters, **options):
    options = {"section": "rope_scaling", "theta": 1e4, "max_positions": 32} | options
    return read_rope(parameters, **options)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(rope_values(32))
def test_what_is_written_is_read_again(values):
    rope = read(values)
    written = write_rope(rope, max_positions=32)
    assert read(written) == rope
    assert values.items() <= written.items()


def test_nothing_is_the_default_type():
    assert read({}, theta=5e5) == RopeConfig(theta=5e5)
    assert write_rope(RopeConfig(theta=5e5), max_positions=32) == {"rope_type": "default", "rope_theta": 5e5}


def test_both_spellings_of_the_type_are_read():
    llama3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    expected = RopeConfig("llama3", factor=8.0, original_positions=8192)
    assert read({"rope_type": "llama3"} | llama3) == read({"type": "llama3"} | llama3) == expected


def test_yarn_takes_its_factor_from_the_positions_when_it_has_none():
    rope = read({"type": "yarn", "factor": None, "original_max_position_embeddings": 8})
    assert rope == RopeConfig("yarn", factor=4.0, original_positions=8)


def test_null_and_zero_stand_for_the_default():
    parameters = {"type": "yarn", "factor": 2.0, "beta_fast": None, "beta_slow": 0, "mscale": None}
    assert read(parameters | {"attention_factor": None}) == RopeConfig("yarn", factor=2.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type is 'longrope'; supported are 'default', 'linear'"),
        ({"rope_type": "proportional"}, "rope_type is 'proportional'; supported are"),
        ({"type": "mrope", "mrope_section": [1, 1]}, "rope_type is 'mrope'; supported are"),
        ({"rope_type": "default", "mrope_section": [16, 24]}, "mrope_section is .*; this parameter is not supported"),
        ({"rope_type": "default", "partial_rotary_factor": 0.25}, "partial_rotary_factor is 0.25; only"),
        ({"rope_type": None}, "rope_type is None; supported are"),
        ({"rope_type": "linear"}, "factor is None; a number is needed"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2'; a number is needed"),
        ({"rope_type": "dynamic", "factor": -1.0}, "factor is -1.0; it must be positive"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}, "low_freq_factor is None; a number"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": None}, "truncate is None; true or false"),
        ({"rope_type": "yarn", "factor": 2.0, "attention_factor": 0}, "attention_factor is 0; it must be positive"),
        ({"rope_type": "yarn", "original_max_position_embeddings": 8.5}, "original_max.* is 8.5; a whole number"),
        ({"rope_type": "default", "rope_theta": 0}, "theta is 0.0; it must be larger than 1"),
    ],
)
def test_what_is_not_supported_is_refused_with_key_and_value(parameters, message):
    with pytest.raises(SeallmError, match=f"config.json: rope_scaling: {message}"):
        read(parameters)
