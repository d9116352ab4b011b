"""Every family's config.json in both directions, for random models."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_models import config_values, older_spelling

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import RopeConfig
from seallm_jax.models.families.registry import FAMILIES

transformers = pytest.importorskip("transformers")

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
SETTINGS = settings(max_examples=30, derandomize=True, deadline=None)
SHAPE = {  # what a config.json cannot leave out
    "vocab_size": 130,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def shape(family) -> dict:
    bloom = {"vocab_size": 130, "hidden_size": 24, "n_layer": 3, "n_head": 4}
    return {"model_type": family.model_type} | (bloom if family.name == "bloom" else SHAPE)


def read(family, values):
    """The model's shape, or why there is none."""
    try:
        return family.config_from_huggingface(json.loads(json.dumps(values)))
    except SeallmError as error:
        return str(error)


def completed(family, values) -> dict:
    """The same config.json as transformers understands it: nothing left out."""
    try:
        config = transformers.CONFIG_MAPPING[family.model_type](**json.loads(json.dumps(values)))
    except ValueError:
        assume(False)
    return json.loads(config.to_json_string(use_diff=False))


@EVERY_FAMILY
@SETTINGS
@given(data=st.data())
def test_what_is_left_out_is_what_transformers_fills_in(family, data):
    values = data.draw(config_values(family.name))
    optional = sorted(values.keys() & family.defaults.keys() | values.keys() & {"rope_parameters", "layer_types"})
    for key in data.draw(st.sets(st.sampled_from(optional))):
        del values[key]
    assert read(family, values) == read(family, completed(family, values))


@EVERY_FAMILY
@SETTINGS
@given(data=st.data())
def test_old_and_new_spelling_are_the_same_model(family, data):
    values = data.draw(config_values(family.name))
    config = family.config_from_huggingface(values)
    assert config == family.config_from_huggingface(older_spelling(values))
    assert config == family.config_from_huggingface(completed(family, older_spelling(values)))


@EVERY_FAMILY
@SETTINGS
@given(data=st.data())
def test_what_is_written_is_read_again_here_and_by_transformers(family, data):
    config = family.config_from_huggingface(data.draw(config_values(family.name)))
    padded = dataclasses.replace(config, padded_vocabulary_size=256)
    values = json.loads(json.dumps(family.config_to_huggingface(padded)))
    assert values["architectures"] == [family.architecture]
    assert family.config_from_huggingface(values) == config
    assert family.config_from_huggingface(completed(family, values)) == config
    older = {key: value for key, value in values.items() if key not in ("rope_parameters", "layer_types")}
    if family.name not in ("qwen2", "qwen3", "gemma2", "gemma3"):  # transformers 4 knows all that the others have
        assert family.config_from_huggingface(older) == config


@EVERY_FAMILY
def test_a_published_config_needs_the_shape_only(family):
    config = family.config_from_huggingface(shape(family))
    assert (config.family, config.vocabulary_size, config.num_layers, config.num_heads) == (family.name, 130, 3, 4)
    assert config.padded_vocabulary_size == 0


@EVERY_FAMILY
@SETTINGS
@given(data=st.data())
def test_a_missing_or_wrong_shape_is_one_clear_error(family, data):
    values = shape(family)
    key = data.draw(st.sampled_from(sorted(values.keys() - {"model_type", "num_key_value_heads"})))
    wrong = data.draw(st.sampled_from([None, "12", 1.5, True, [2], 0, -4]))
    with pytest.raises(SeallmError, match=f"{key} is .*; a whole number from 1 on is needed"):
        family.config_from_huggingface(values | {key: wrong})
    del values[key]
    with pytest.raises(SeallmError, match=f"{key} is None; a whole number from 1 on is needed"):
        family.config_from_huggingface(values)


@EVERY_FAMILY
@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"per_layer_config": {"0": {"hidden_size": 8}}},
        {"use_bidirectional_attention": True},
        {"model_type": "gpt2"},
        {"tie_word_embeddings": "yes"},
        {"initializer_range": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_family_has_is_refused_with_key_and_value(family, change):
    ((key, value),) = change.items()
    with pytest.raises(SeallmError) as error:
        family.config_from_huggingface(shape(family) | change)
    assert f"{key} is {value!r}; " in str(error.value) and "\n" not in str(error.value)


ROTARY = tuple(name for name in FAMILIES if name != "bloom")
LOCAL = ["sliding_attention"] * 3
REFUSED = [  # families, keys of a config.json, message
    (ROTARY, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only"),
    (("llama",), {"original_max_position_embeddings": 8}, "original_max_position_embeddings is 8; only None"),
    (("llama", "mistral", "qwen2", "qwen3", "olmo2"), {"hidden_act": "relu"}, "hidden_act is 'relu'; supported are"),
    (("llama", "mistral"), {"hidden_act": None}, "hidden_act is None; supported are"),
    (("gemma",), {"hidden_act": "silu"}, "hidden_act is 'silu'; supported are"),
    (("gemma",), {"hidden_activation": "gelu"}, "hidden_activation is 'gelu'; only"),
    (("gemma2", "gemma3"), {"hidden_activation": "quick_gelu"}, "hidden_activation is 'quick_gelu'; supported are"),
    (("gemma2", "gemma3"), {"final_logit_softcapping": 0.0}, "final_logit_softcapping is 0.0; it must be positive"),
    (("gemma2",), {"attn_logit_softcapping": -1}, "attn_logit_softcapping is -1.0; it must be positive"),
    (("gemma2", "gemma3"), {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0; a whole number from 1 on"),
    (("qwen2",), {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers is -1; a whole number"),
    (("gemma3",), {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0; only None"),
    (("gemma3",), {"sliding_window_pattern": 0}, "sliding_window_pattern is 0; a whole number from 1"),
    (("gemma3",), {"rope_parameters": {"rope_type": "default"}}, "rope_parameters has rope_type = 'default'"),
    (("gemma3",), {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate is False; only"),
    (("qwen2", "qwen3"), {"layer_types": LOCAL}, "use_sliding_window is False, but layer_types has"),
    (("mistral",), {"sliding_window": None, "layer_types": LOCAL}, "layer_types is .*; only None or"),
    (("mistral", "gemma2"), {"sliding_window": 0}, "sliding_window is 0; a whole number from 1 on"),
    (("llama", "olmo2"), {"num_key_value_heads": 3}, "num_key_value_heads is 3; it must divide"),
    (("llama", "qwen3", "olmo2"), {"attention_bias": "true"}, "attention_bias is 'true'; true or false is needed"),
    (("bloom",), {"apply_residual_connection_post_layernorm": True}, "apply_residual.* is True; only False"),
    (("bloom",), {"slow_but_exact": True}, "slow_but_exact is True; only False"),
    (("bloom",), {"n_inner": 80}, "n_inner is 80; only None or 96 is supported"),
    (("bloom",), {"n_embed": 32}, "n_embed is 32; hidden_size is 24, and they must agree"),
    (("bloom",), {"n_head": 5}, "hidden_size is 24; it must be a multiple of n_head = 5"),
]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [(name, change, message) for names, change, message in REFUSED for name in names],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_would_be_computed_differently_is_refused(name, change, message):
    with pytest.raises(SeallmError, match=message):
        FAMILIES[name].config_from_huggingface(shape(FAMILIES[name]) | change)


LLAMA_SHAPE = FAMILIES["llama"].config_from_huggingface({"model_type": "llama"} | SHAPE)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama", {"query_key_norm": "head"}),
        ("llama", {"local_layers": (True, False, True), "sliding_window": 8}),
        ("llama", {"query_key_value_bias": True}),  # and none on the output
        ("llama", {"norm": "layer"}),
        ("llama", {"positions": "alibi"}),
        ("llama", {"gated": False}),
        ("mistral", {"mlp_bias": True}),
        ("mistral", {"local_layers": (True, False, True), "sliding_window": 8}),
        ("qwen2", {}),  # lacks the biases
        ("gemma2", {}),  # lacks the scale of the embedding, and much more
        ("bloom", {}),
        ("olmo2", {"norm_placement": "post"}),  # lacks the norms of q and k
    ],
)
def test_a_shape_that_the_family_does_not_have_is_not_written(name, change):
    config = dataclasses.replace(LLAMA_SHAPE, family=name, **change)
    with pytest.raises(SeallmError, match="^model.* has .*: choose another model.family"):
        FAMILIES[name].config_to_huggingface(config)


def test_equal_shapes_are_written_alike():
    family = FAMILIES["gemma3"]
    shortest = family.config_from_huggingface(shape(family) | {"layer_types": ["full_attention"] * 3})
    shortest = dataclasses.replace(shortest, attention_scale=0.0, rope=RopeConfig("yarn", factor=4.0))
    rope = RopeConfig("yarn", factor=4.0, original_positions=shortest.max_positions, low_frequency_factor=2.0)
    longest = dataclasses.replace(
        shortest,
        rope=rope,
        local_rope=RopeConfig(),
        local_layers=(False,) * 3,
        sliding_window=4,
        attention_scale=shortest.head_size**-0.5,
    )
    assert family.config_to_huggingface(longest) == family.config_to_huggingface(shortest)
