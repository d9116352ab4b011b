"""config.json of published models, without what does not matter to the shape, and what is made of them."""

from __future__ import annotations

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import RopeConfig
from seallm_jax.models.families.registry import FAMILIES, family_named, family_of, supported_architectures

LLAMA3_ROPE = {"high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}


def config(architecture, model_type, vocabulary, hidden, intermediate, layers, heads, key_value_heads, **rest):
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
    } | rest


PUBLISHED = {
    "Llama 2 7B": (
        config("LlamaForCausalLM", "llama", 32000, 4096, 11008, 32, 32, 32)
        | {"hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None}
        | {"pretraining_tp": 1, "tie_word_embeddings": False, "torch_dtype": "float16"},
        {"family": "llama", "head_size": 128, "rope": RopeConfig(), "norm_epsilon": 1e-5, "tie_embeddings": False},
    ),
    "Llama 3.2 1B": (
        config("LlamaForCausalLM", "llama", 128256, 2048, 8192, 16, 32, 8)
        | {"head_dim": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0}
        | {"rope_scaling": {"factor": 32.0, "rope_type": "llama3", **LLAMA3_ROPE}, "tie_word_embeddings": True},
        {
            "rope": RopeConfig("llama3", theta=500000.0, factor=32.0, original_positions=8192),
            "tie_embeddings": True,
            "longest_text": 131072,
        },
    ),
    "Mistral 7B v0.1": (
        config("MistralForCausalLM", "mistral", 32000, 4096, 14336, 32, 32, 8)
        | {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096},
        {"family": "mistral", "sliding_window": 4096, "local_layers": (True,) * 32, "head_size": 128},
    ),
    "Mistral Nemo": (
        config("MistralForCausalLM", "mistral", 131072, 5120, 14336, 40, 32, 8)
        | {"head_dim": 128, "max_position_embeddings": 1024000, "rope_theta": 1000000.0, "sliding_window": None},
        {"sliding_window": 0, "local_layers": (), "head_size": 128},
    ),
    "Qwen 2.5 7B, YaRN switched on": (
        config("Qwen2ForCausalLM", "qwen2", 152064, 3584, 18944, 28, 28, 4)
        | {"max_position_embeddings": 32768, "max_window_layers": 28, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0}
        | {"sliding_window": 131072, "use_sliding_window": False, "tie_word_embeddings": False}
        | {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}},
        {
            "family": "qwen2",
            "query_key_value_bias": True,
            "output_bias": False,
            "local_layers": (),
            "rope": RopeConfig("yarn", theta=1000000.0, factor=4.0),
            "longest_text": 131072,
        },
    ),
    "Qwen 3 8B": (
        config("Qwen3ForCausalLM", "qwen3", 151936, 4096, 12288, 36, 32, 8)
        | {"attention_bias": False, "head_dim": 128, "max_position_embeddings": 40960, "rope_theta": 1000000}
        | {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 36, "rope_scaling": None},
        {"family": "qwen3", "query_key_norm": "head", "query_key_value_bias": False, "local_layers": ()},
    ),
    "Gemma 2B": (
        config("GemmaForCausalLM", "gemma", 256000, 2048, 16384, 18, 8, 1)
        | {"head_dim": 256, "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "rope_scaling": None},
        {
            "family": "gemma",
            "activation": "gelu_tanh",
            "norm": "rms_one",
            "embedding_scale": 2048**0.5,
            "tie_embeddings": True,
            "attention_scale": 0.0,
        },
    ),
    "Gemma 2 27B": (
        config("Gemma2ForCausalLM", "gemma2", 256000, 4608, 36864, 46, 32, 16)
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "cache_implementation": "hybrid"}
        | {"head_dim": 128, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
        | {"query_pre_attn_scalar": 144, "sliding_window": 4096, "max_position_embeddings": 8192},
        {
            "family": "gemma2",
            "norm_placement": "sandwich",
            "attention_scale": 144**-0.5,
            "attention_soft_cap": 50.0,
            "logit_soft_cap": 30.0,
            "local_layers": (True, False) * 23,
        },
    ),
    "Gemma 3 1B": (
        config("Gemma3ForCausalLM", "gemma3_text", 262144, 1152, 6912, 26, 4, 1)
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256, "rope_scaling": None}
        | {"hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768, "query_pre_attn_scalar": 256}
        | {"rope_local_base_freq": 10000, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6},
        {
            "family": "gemma3",
            "query_key_norm": "head",
            "attention_scale": 0.0,
            "rope": RopeConfig(theta=1000000.0),
            "local_rope": RopeConfig(),
            "local_layers": ((True,) * 5 + (False,)) * 4 + (True, True),
        },
    ),
    "BLOOM 7B1": (
        {"architectures": ["BloomModel"], "model_type": "bloom", "vocab_size": 250880, "n_embed": 4096, "n_layer": 30}
        | {"num_attention_heads": 32, "n_inner": None, "offset_alibi": 100, "layer_norm_epsilon": 1e-5}
        | {"apply_residual_connection_post_layernorm": False, "seq_length": 2048, "skip_bias_add": True},
        {
            "family": "bloom",
            "positions": "alibi",
            "norm": "layer",
            "embedding_norm": True,
            "intermediate_size": 16384,
            "num_key_value_heads": 32,
            "tie_embeddings": True,
            "gated": False,
        },
    ),
    "OLMo 2 7B": (
        config("Olmo2ForCausalLM", "olmo2", 100352, 4096, 11008, 32, 32, 32)
        | {"attention_bias": False, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 500000},
        {"family": "olmo2", "norm_placement": "post", "query_key_norm": "projection", "norm_epsilon": 1e-6},
    ),
}


@pytest.mark.parametrize(("values", "expected"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_models_are_read_and_written(values, expected):
    family = family_of(values)
    model = family.config_from_huggingface(values)
    assert {key: getattr(model, key) for key in expected} == expected
    assert family is family_named(model.family)
    assert family.config_from_huggingface(family.config_to_huggingface(model)) == model


def test_a_family_is_found_by_its_model_type_where_no_architecture_is_named():
    for family in FAMILIES.values():
        assert family_of({"model_type": family.model_type}) is family
        assert family_of({"architectures": [family.architecture], "model_type": "?"}) is family
    assert supported_architectures()[0] == "LlamaForCausalLM" and len(supported_architectures()) == len(FAMILIES)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"architectures": ["FalconForCausalLM"], "model_type": "falcon"}, "FalconForCausalLM"),
        (
            {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"},
            "LlamaForSequenceClassification",
        ),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}, "Gemma3ForConditional"),
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({}, "model_type None"),
    ],
)
def test_an_unknown_architecture_is_named_with_those_that_are_supported(values, named):
    with pytest.raises(SeallmError, match=f"architecture {named}.* is not supported; supported are LlamaForCausalLM, "):
        family_of(values)


def test_an_unknown_family_is_named_with_those_that_exist():
    with pytest.raises(SeallmError, match="model.family is 'falcon'; use one of llama, mistral, "):
        family_named("falcon")
