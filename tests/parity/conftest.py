"""Tiny Llama models of transformers (torch, float32) and the same weights in a Decoder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import abstract_decoder, path_name
from seallm_jax.models.llama import config_from_huggingface, weights

VARIANTS = {
    "one key per query, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "grouped queries, tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
}


class Twins(NamedTuple):
    """The same model twice. `parameters(tensors)` stacks named checkpoint tensors (numpy) into parameters by path."""

    theirs: Any  # transformers.LlamaForCausalLM
    ours: Decoder
    parameters: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def make_torch_model(seed: int, **changes):
    """A model of transformers with weights large enough for attention to be far from uniform."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=150,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=16,
        max_position_embeddings=64,
        rope_theta=5000.0,
        rms_norm_eps=1e-5,
        initializer_range=0.2,
        attn_implementation="eager",
        **changes,
    )
    return LlamaForCausalLM(config).float().eval()


def parameters_by_path(tensors, config) -> dict[str, np.ndarray]:
    """Named tensors of a checkpoint as parameters by path, stacked; `tensors` maps names to numpy arrays."""
    found = {}
    for weight in weights(config):
        arrays = [weight.from_checkpoint(tensors[name], config) for name in weight.names(config)]
        found[weight.path] = np.stack(arrays) if weight.stacked else arrays[0]
    return found


def decoder_from(theirs) -> Decoder:
    config = config_from_huggingface(theirs.config.to_dict())
    tensors = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
    found = parameters_by_path(tensors, config)
    graph, abstract = abstract_decoder(config)

    def fill(path, shape):
        array = found[path_name(path)]
        assert array.shape[1:] == shape.shape[1:], path
        return jax.numpy.asarray(np.pad(array, [(0, shape.shape[0] - array.shape[0])] + [(0, 0)] * (array.ndim - 1)))

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, abstract))


@pytest.fixture(scope="session", params=VARIANTS.values(), ids=VARIANTS.keys())
def twins(request) -> Twins:
    pytest.importorskip("torch")
    theirs = make_torch_model(0, **request.param)
    ours = decoder_from(theirs)
    return Twins(theirs, ours, functools.partial(parameters_by_path, config=ours.config))


@pytest.fixture(scope="session")
def reference_model():
    """Another torch model, the frozen reference of preference losses."""
    pytest.importorskip("torch")
    return make_torch_model(1, num_key_value_heads=2, tie_word_embeddings=False)
