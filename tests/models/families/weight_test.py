"""Weight tables of every family: all tensors of the model in transformers, back and forth byte for byte."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import config_values

from seallm_jax.models.families.registry import FAMILIES
from seallm_jax.models.families.weight import Weight, join
from seallm_jax.models.layout import abstract_decoder, path_name

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def draw_config(family, data):
    return family.config_from_huggingface(data.draw(config_values(family.name)))


@EVERY_FAMILY
@settings(max_examples=8, derandomize=True, deadline=None)
@given(data=st.data())
def test_the_table_names_every_tensor_of_the_model_once(family, data):
    torch = pytest.importorskip("torch")
    import transformers

    values = data.draw(config_values(family.name))
    config = family.config_from_huggingface(values)
    architecture = getattr(transformers, family.architecture)
    with torch.device("meta"):
        theirs = architecture(architecture.config_class(**values)).state_dict()
    if config.tie_embeddings:
        del theirs["lm_head.weight"]
    table = family.weights(config)
    shapes = {name: weight.checkpoint_shape(config) for weight in table for name in weight.names(config)}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    parts = [(name, weight.part) for weight in table for name in weight.names(config)]
    assert len(set(parts)) == len(parts)


@EVERY_FAMILY
@settings(max_examples=3, derandomize=True, deadline=None)
@given(data=st.data())
def test_the_table_covers_every_parameter_of_the_decoder_once(family, data):
    config = dataclasses.replace(draw_config(family, data), padded_vocabulary_size=150)
    shapes = {
        weight.path: ((config.num_layers,) if weight.stacked else ())
        + weight.from_checkpoint(np.empty(weight.checkpoint_shape(config), np.int8), config).shape
        for weight in family.weights(config)
    }
    leaves = jax.tree_util.tree_leaves_with_path(abstract_decoder(config)[1])
    assert shapes == {path_name(path): leaf.shape for path, leaf in leaves}
    assert len(shapes) == len(family.weights(config))


@EVERY_FAMILY
@settings(max_examples=10, derandomize=True, deadline=None)
@given(data=st.data())
def test_tensors_survive_import_and_export_byte_for_byte(family, data):
    config = draw_config(family, data)
    rng = np.random.default_rng(0)
    for rows in by_name(family.weights(config)):
        shape = rows[0].checkpoint_shape(config)
        tensor = rng.integers(0, 2**16, shape, dtype=np.uint16).view(np.float16)  # any bits, also of no number
        parameters = [pad(row, row.from_checkpoint(tensor, config)) for row in rows]
        assert join(rows, parameters, config).tobytes() == tensor.tobytes()


def by_name(rows) -> list[list[Weight]]:
    """Rows that share a tensor, together."""
    tensors: dict[str, list[Weight]] = {}
    for row in rows:
        tensors.setdefault(row.name, []).append(row)
    return list(tensors.values())


def pad(row: Weight, parameter: np.ndarray) -> np.ndarray:
    """As the decoder holds it: with rows that no token has."""
    return np.pad(parameter, ((0, 106), (0, 0)), constant_values=7) if row.ours == "VM" else parameter


def test_blooms_fused_tensor_is_interleaved_by_head():
    family = FAMILIES["bloom"]
    config = family.config_from_huggingface(
        {"model_type": "bloom", "vocab_size": 5, "hidden_size": 6, "n_layer": 1, "n_head": 2}
    )
    rows = {weight.path: weight for weight in family.weights(config)}
    bias = np.arange(18)  # for each head: three of q, three of k, three of v
    for name, expected in {
        "query": [[0, 1, 2], [9, 10, 11]],
        "key": [[3, 4, 5], [12, 13, 14]],
        "value": [[6, 7, 8], [15, 16, 17]],
    }.items():
        found = rows[f"layers.attention.{name}.bias"].from_checkpoint(bias, config)
        np.testing.assert_array_equal(found, expected)
