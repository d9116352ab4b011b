"""One small configuration for each group of families; together they turn every switch of the decoder.

Dynamic rotary positions are left to `rotary_test.py`.
"""

from __future__ import annotations

import dataclasses

import pytest

from seallm_jax.core.schema import ModelConfig, RopeConfig

LLAMA = ModelConfig(
    vocabulary_size=100,
    padded_vocabulary_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_size=8,
    initializer_range=0.3,  # attention far from uniform
)
GEMMA = dataclasses.replace(
    LLAMA,
    norm="rms_one",
    norm_placement="sandwich",
    embedding_scale=32**0.5,
    activation="gelu_tanh",
    tie_embeddings=True,
    head_size=12,
    sliding_window=4,
    local_layers=(True, False),
    attention_scale=0.2,
)
VARIANTS = {
    "llama": LLAMA,
    "gemma 2": dataclasses.replace(GEMMA, attention_soft_cap=2.0, logit_soft_cap=3.0),
    "gemma 3, one key head": dataclasses.replace(
        GEMMA,
        num_key_value_heads=1,
        query_key_norm="head",
        rope=RopeConfig("linear", theta=1e6, factor=8.0),
        local_rope=RopeConfig(),
    ),
    "bloom": dataclasses.replace(
        LLAMA,
        num_heads=6,
        num_key_value_heads=6,
        norm="layer",
        embedding_norm=True,
        query_key_value_bias=True,
        output_bias=True,
        mlp_bias=True,
        gated=False,
        activation="gelu_tanh",
        positions="alibi",
        tie_embeddings=True,
    ),
    "olmo 2, yarn": dataclasses.replace(
        LLAMA,
        norm_placement="post",
        query_key_norm="projection",
        rope=RopeConfig("yarn", factor=4.0, original_positions=8, beta_fast=2.0, beta_slow=0.5),
    ),
    "mistral, llama 3 rope, biases": dataclasses.replace(
        LLAMA,
        norm="layer",
        norm_placement="sandwich",
        query_key_value_bias=True,
        mlp_bias=True,
        activation="gelu",
        sliding_window=3,
        local_layers=(True, True),
        rope=RopeConfig("llama3", theta=100.0, factor=8.0, original_positions=16),
    ),
}


@pytest.fixture(scope="session")
def variants() -> dict[str, ModelConfig]:
    return VARIANTS


@pytest.fixture(scope="session", params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request) -> ModelConfig:
    """Each of them in turn."""
    return request.param
