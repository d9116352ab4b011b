from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.layout import LOGICAL_AXES
from seallm_jax.models.llama import WEIGHTS, config_from_huggingface, config_to_huggingface, weights

CONFIG = ModelConfig(
    vocabulary_size=130,
    padded_vocabulary_size=256,
    hidden_size=24,
    intermediate_size=40,
    num_layers=3,
    num_heads=6,
    num_key_value_heads=2,
    head_size=8,
    rope_theta=500000.0,
    norm_epsilon=1e-6,
    tie_embeddings=True,
    max_positions=4096,
)
LLAMA_2_7B = {  # as transformers 4 wrote it
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}


def test_configuration_survives_the_round_trip():
    assert config_from_huggingface(json.loads(json.dumps(config_to_huggingface(CONFIG)))) == CONFIG


def test_transformers_reads_what_is_written():
    transformers = pytest.importorskip("transformers")
    read = transformers.LlamaConfig(**config_to_huggingface(CONFIG))
    assert config_from_huggingface(read.to_dict()) == CONFIG


def test_reads_the_published_llama_2():
    config = config_from_huggingface(LLAMA_2_7B, tensor=8)
    assert (config.vocabulary_size, config.padded_vocabulary_size) == (32000, 32768)
    assert (config.num_layers, config.num_heads, config.num_key_value_heads, config.head_size) == (32, 32, 32, 128)
    assert (config.rope_theta, config.norm_epsilon, config.tie_embeddings) == (10000.0, 1e-5, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; only 'llama' is supported"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is .*llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is .*yarn"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"hidden_size": None}, "hidden_size is None; a whole number is needed"),
        ({"num_key_value_heads": 5}, "num_key_value_heads is 5; it must divide"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_be_computed_differently_is_refused(change, message):
    with pytest.raises(SeallmError, match=message):
        config_from_huggingface(LLAMA_2_7B | change)


def test_both_spellings_of_the_rotary_base_are_read():
    old = config_from_huggingface(LLAMA_2_7B | {"rope_theta": 5e5})
    new = config_from_huggingface(LLAMA_2_7B | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})
    assert old == new and old.rope_theta == 5e5


def test_the_table_covers_the_model_once():
    assert [weight.path for weight in WEIGHTS if weight.path not in LOGICAL_AXES] == []
    assert sorted(weight.path for weight in WEIGHTS) == sorted(LOGICAL_AXES)
    assert {weight.path for weight in WEIGHTS} - {weight.path for weight in weights(CONFIG)} == {"head.kernel"}


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(WEIGHTS))
def test_weights_survive_the_round_trip(weight):
    shape = weight.checkpoint_shape(CONFIG)
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    parameter = weight.from_checkpoint(tensor, CONFIG)
    assert parameter.ndim == len(LOGICAL_AXES[weight.path]) - weight.stacked
    if weight.ours == "VM":
        parameter = np.pad(parameter, ((0, 126), (0, 0)), constant_values=np.nan)
    np.testing.assert_array_equal(weight.to_checkpoint(parameter, CONFIG), tensor)
