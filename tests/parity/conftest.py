"""Models of transformers (torch, float32) and the same weights in a Decoder."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.families.registry import family_named, family_of
from seallm_jax.models.layout import abstract_decoder, path_name

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for random_models, in every import mode of pytest

from random_models import torch_model  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def small_programs():
    """Programs as small as these cost more to optimise, or to spread over threads, than to run."""
    torch = pytest.importorskip("torch")
    threads, before = torch.get_num_threads(), jax.config.read("jax_disable_most_optimizations")
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    torch.set_num_threads(threads)


class Twins(NamedTuple):
    """The same model twice. `parameters(tensors)` stacks named checkpoint tensors (numpy) into parameters by path."""

    theirs: Any  # a model of transformers
    ours: Decoder
    parameters: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def parameters_by_path(tensors: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Named tensors of a checkpoint as parameters by path, stacked."""
    found = {}
    for weight in family_named(config.family).weights(config):
        arrays = [weight.from_checkpoint(tensors[name], config) for name in weight.names(config)]
        found[weight.path] = np.stack(arrays) if weight.stacked else arrays[0]
    return found


def decoder_from(theirs: Any) -> Decoder:
    """The same model here, through the tables of its family."""
    values = theirs.config.to_dict()
    config = family_of(values).config_from_huggingface(values)
    padded = Vocabulary.padded(config.vocabulary_size).padded_size
    config = dataclasses.replace(config, padded_vocabulary_size=padded)
    found = parameters_by_path({name: tensor.numpy() for name, tensor in theirs.state_dict().items()}, config)
    graph, abstract = abstract_decoder(config)

    def fill(path, shape):
        array = found.pop(path_name(path))
        assert array.shape[1:] == shape.shape[1:], path
        return jax.numpy.asarray(np.pad(array, [(0, shape.shape[0] - array.shape[0])] + [(0, 0)] * (array.ndim - 1)))

    filled = jax.tree_util.tree_map_with_path(fill, abstract)
    assert not found, f"no place for {list(found)}"
    return nnx.merge(graph, filled)


@pytest.fixture(scope="session")
def make_twins() -> Callable[..., Twins]:
    """From a family and the keys of its config.json to a random model in both forms."""
    pytest.importorskip("torch")

    def make(family: str, values: dict[str, Any]) -> Twins:
        theirs = torch_model(family, values)
        ours = decoder_from(theirs)
        return Twins(theirs, ours, functools.partial(parameters_by_path, config=ours.config))

    return make


def small_llama(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": 150,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "rope_theta": 5000.0,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
        **changes,
    }


@pytest.fixture(scope="session")
def twins(request, make_twins) -> Twins:
    """A Llama with the changes that the test's parameter holds."""
    return make_twins("llama", small_llama(**request.param))


@pytest.fixture(scope="session")
def reference_model():
    """Another torch model, the frozen reference of preference losses."""
    pytest.importorskip("torch")
    return torch_model("llama", small_llama(num_key_value_heads=2), seed=1)
