from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.models.adapters.attach import enable_dropout
from seallm_jax.models.adapters.parameters import by_path
from seallm_jax.models.layout import abstract_decoder

CONFIG = ModelConfig(
    vocabulary_size=11,
    padded_vocabulary_size=16,
    hidden_size=64,
    intermediate_size=128,
    num_layers=3,
    num_heads=2,
    num_key_value_heads=1,
    head_size=32,
)


def added(adapter, config=CONFIG) -> dict[str, tuple[int, ...]]:
    _, plain = abstract_decoder(config)
    _, adapted = abstract_decoder(config, adapter=adapter)
    return {path: leaf.shape for path, leaf in by_path(adapted).items() if path not in by_path(plain)}


def test_shapes():
    assert added(AdapterConfig(rank=5, targets=("query", "output", "head"))) == {
        "layers.attention.query.lora_a": (3, 64, 5),
        "layers.attention.query.lora_b": (3, 5, 2, 32),
        "layers.attention.output.lora_a": (3, 2, 32, 5),
        "layers.attention.output.lora_b": (3, 5, 64),
        "head.lora_a": (64, 5),
        "head.lora_b": (5, 16),
    }
    assert added(AdapterConfig(targets=(), train_new_rows=True, first_new_row=8)) == {
        "embedding.new_rows": (3, 64),
        "head.new_rows": (3, 64),
    }


def test_quantised_kernels_take_the_place_of_the_others():
    _, adapted = abstract_decoder(CONFIG, adapter=AdapterConfig(targets=("value",), quantize="nf4"))
    paths = by_path(adapted)
    assert not [path for path in paths if path.startswith("layers") and path.endswith("kernel")]
    assert sum(path.endswith(".codes") for path in paths) == 7
    assert [path for path in paths if path.endswith(("lora_a", "lora_b"))] == [
        "layers.attention.value.lora_a",
        "layers.attention.value.lora_b",
    ]


def test_what_the_model_does_not_have():
    plain = dataclasses.replace(CONFIG, gated=False)
    assert not [path for path in added(AdapterConfig(targets=("all-linear",)), plain) if "gate" in path]
    with pytest.raises(SeallmError, match="'gate', which this llama model does not have"):
        added(AdapterConfig(targets=("gate_proj",)), plain)
    tied = dataclasses.replace(CONFIG, tie_embeddings=True)
    assert {path.split(".")[0] for path in added(AdapterConfig(targets=("*",)), tied)} == {"embedding", "layers"}
    with pytest.raises(SeallmError, match="'head', which is tied to the embedding"):
        added(AdapterConfig(targets=("lm_head",)), tied)
    for first in (0, 11):
        with pytest.raises(SeallmError, match=f"has 11 rows and the first new one is {first}"):
            added(AdapterConfig(targets=(), train_new_rows=True, first_new_row=first))


def test_every_projection_and_layer_drops_other_inputs():
    adapter = AdapterConfig(targets=("key", "up"), dropout=0.1)
    decoder = nnx.merge(*abstract_decoder(CONFIG, adapter=adapter))
    enable_dropout(decoder, jax.random.key(0))
    keys = [decoder.layers.attention.key.dropout_key, decoder.layers.mlp.up.dropout_key]
    drawn = np.concatenate([jax.random.key_data(key[...]) for key in keys])
    assert drawn.shape == (6, 2) and len(np.unique(drawn, axis=0)) == 6
    assert not hasattr(decoder.layers.attention.query, "dropout_key")
