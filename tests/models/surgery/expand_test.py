"""Which blocks are copied where, and that LLaMA Pro's copies change nothing, however a model is normalised."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import LOGICAL_AXES, abstract_decoder, path_name
from seallm_jax.models.surgery.expand import OUTPUTS, Expansion

SMALL = ModelConfig(
    vocabulary_size=50,
    padded_vocabulary_size=128,
    hidden_size=16,
    intermediate_size=24,
    num_layers=3,
    num_heads=2,
    num_key_value_heads=1,
    head_size=8,
    initializer_range=0.3,
)
SHAPES = {
    "pre": {},
    "post": {"norm_placement": "post", "query_key_norm": "projection"},
    "sandwich, windows, soft caps": {
        "norm": "rms_one",
        "norm_placement": "sandwich",
        "sliding_window": 3,
        "local_layers": (True, False, True),
        "attention_soft_cap": 5.0,
        "query_key_norm": "head",
    },
    "layer norm, biases, ALiBi": {
        "norm": "layer",
        "positions": "alibi",
        "query_key_value_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "gated": False,
        "activation": "gelu_tanh",
        "embedding_norm": True,
        "tie_embeddings": True,
    },
}


@functools.partial(jax.jit, static_argnames="graph")
def logits(parameters, graph):
    model = nnx.merge(graph, parameters)
    tokens = jnp.arange(14).reshape(2, 7) * 3 % 50
    positions = jnp.broadcast_to(jnp.arange(7), (2, 7))
    return model.logits(model(tokens, positions, jnp.ones((2, 7), jnp.int32), compute_dtype=jnp.float32))


def deeper(model: Decoder, expansion: Expansion):
    """Logits of a model, and of the same expanded."""
    graph, parameters = nnx.split(model)
    new_graph, _ = abstract_decoder(expansion.config(model.config))

    def expand(path, leaf):
        return jnp.asarray(expansion.parameter(path_name(path), np.asarray(leaf)))

    return logits(parameters, graph), logits(jax.tree_util.tree_map_with_path(expand, parameters), new_graph)


def random_model(config: ModelConfig) -> Decoder:
    """Also biases and norms are random."""
    graph, abstract = abstract_decoder(config)
    random = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(random.normal(0.3, 0.3, x.shape), x.dtype), abstract))


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_llama_pro_computes_what_the_model_did(changes):
    model = random_model(dataclasses.replace(SMALL, **changes))
    before, after = deeper(model, Expansion.llama_pro(3, 2))
    assert np.isfinite(before[..., :50]).all() and before[..., :50].std() > 0.1
    np.testing.assert_array_equal(before, after)


def test_depth_without_noise_repeats_a_block_and_noise_changes_it():
    model = random_model(SMALL)
    before, after = deeper(model, Expansion.depth(3, 1, noise=0.0))
    assert np.abs(before - after)[..., :50].max() > 1e-3
    _, noisy = deeper(model, Expansion.depth(3, 1, noise=0.01))
    assert np.abs(after - noisy)[..., :50].max() > 0


@given(layers=st.integers(1, 100), share=st.floats(0, 1))
def test_llama_pro_spreads_copies_evenly(layers, share):
    blocks = max(1, round(share * layers))
    expansion = Expansion.llama_pro(layers, blocks)
    assert len(expansion.sources) == layers + blocks and len(expansion.inserted) == blocks
    kept = [source for block, source in enumerate(expansion.sources) if block not in expansion.inserted]
    assert kept == list(range(layers))
    assert expansion.inserted[-1] == layers + blocks - 1
    assert all(expansion.sources[block] == expansion.sources[block - 1] for block in expansion.inserted)
    groups = np.diff([-1, *(expansion.sources[block] for block in expansion.inserted)])
    assert groups.max() - groups.min() <= 1


def test_llama_pro_of_the_paper():
    expansion = Expansion.llama_pro(32, 8)  # a copy after each fourth block of Llama 2 7B
    assert expansion.inserted == (4, 9, 14, 19, 24, 29, 34, 39)


@given(layers=st.integers(3, 100), share=st.floats(0, 1))
def test_depth_copies_among_the_second_half(layers, share):
    most = layers - 1 - layers // 2
    blocks = max(1, round(share * most))
    expansion = Expansion.depth(layers, blocks)
    copied = [expansion.sources[block] for block in expansion.inserted]
    assert len(set(copied)) == blocks
    assert min(copied) >= layers // 2 and max(copied) < layers - 1
    assert expansion.sources[-1] == layers - 1 and len(expansion.sources) - 1 not in expansion.inserted


def test_windows_follow_their_blocks():
    config = dataclasses.replace(SMALL, sliding_window=4, local_layers=(True, True, False))
    expanded = Expansion.llama_pro(3, 2).config(config)
    assert expanded.num_layers == 5
    assert expanded.local_layers == (True, True, True, False, False)


def test_only_copies_get_noise_of_the_asked_size():
    expansion = Expansion.depth(6, 2, noise=0.05, seed=3)
    value = np.ones((6, 100, 30), np.float32)
    found = expansion.parameter("layers.mlp.up.kernel", value)
    assert found.shape == (8, 100, 30)
    for block, array in enumerate(found):
        assert np.any(array != 1) == (block in expansion.inserted)
    noise = found[list(expansion.inserted)] - 1
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.05], atol=2e-3)
    assert np.any(noise[0] != noise[1])
    other = dataclasses.replace(expansion, seed=4).parameter("layers.mlp.up.kernel", value)
    assert np.any(other != found)
    np.testing.assert_array_equal(expansion.parameter("embedding.kernel", value), value)


def test_outputs_are_parameters_of_the_decoder():
    assert set(OUTPUTS) <= set(LOGICAL_AXES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Expansion.llama_pro(4, 5), "use 1 to 4"),
        (lambda: Expansion.llama_pro(4, 0), "use 1 to 4"),
        (lambda: Expansion.depth(8, 4), "use 1 to 3"),
        (lambda: Expansion.depth(2, 1), "at least 3"),
        (lambda: Expansion.depth(8, 1, noise=-1.0), "noise is -1.0"),
    ],
)
def test_impossible_expansions_are_errors(make, message):
    with pytest.raises(SeallmError, match=message):
        make()
