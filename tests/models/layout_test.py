from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, ObjectiveConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.layout import (
    LOGICAL_AXES,
    abstract_decoder,
    initialize,
    logical_axes,
    parameter_shardings,
    path_name,
)
from seallm_jax.objectives.registry import build_objective

CONFIG = ModelConfig(
    vocabulary_size=200,
    padded_vocabulary_size=256,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_size=8,
)
MESHES = ({"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2})


def by_path(tree) -> dict:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_paths_are_stable_names_and_all_have_logical_axes(variants):
    shapes = [by_path(abstract_decoder(config)[1]) for config in [CONFIG, *variants.values()]]
    assert set().union(*shapes) == LOGICAL_AXES.keys()
    for path, leaf in (item for found in shapes for item in found.items()):
        assert len(logical_axes(path, len(leaf.shape))) == len(leaf.shape), path
        assert logical_axes("mu." + path, len(leaf.shape)) == logical_axes(path, len(leaf.shape))
    tied = by_path(abstract_decoder(dataclasses.replace(CONFIG, tie_embeddings=True))[1])
    assert shapes[0].keys() - tied.keys() == {"head.kernel"}


def test_an_unknown_path_is_an_error():
    with pytest.raises(KeyError, match="layers.attention.bias"):
        logical_axes("layers.attention.bias")


def test_shardings_follow_the_rules_and_replicate_what_does_not_divide(variants):
    mesh = build_mesh(MeshConfig(fsdp=2, tensor=4))
    found = {path: leaf.spec for path, leaf in by_path(parameter_shardings(abstract_decoder(CONFIG)[1], mesh)).items()}
    assert found["embedding.kernel"] == PartitionSpec("tensor", "fsdp")
    assert found["layers.attention.query.kernel"] == PartitionSpec(None, "fsdp", "tensor", None)
    assert found["layers.attention.key.kernel"] == PartitionSpec(None, "fsdp", None, None)  # 2 heads over 4 devices
    assert found["layers.mlp.down.kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert found["final_norm.scale"] == PartitionSpec(None)

    def specs(name: str) -> dict:
        abstract = abstract_decoder(variants[name])[1]
        return {path: leaf.spec for path, leaf in by_path(parameter_shardings(abstract, mesh)).items()}

    one_key_head, across = specs("gemma 3, one key head"), specs("olmo 2, yarn")
    assert one_key_head["layers.attention.value.kernel"] == PartitionSpec(None, "fsdp", None, None)
    assert one_key_head["layers.attention.query_norm.scale"] == PartitionSpec(None, None)
    assert across["layers.attention.query_norm.scale"] == PartitionSpec(None, "tensor", None)
    assert across["layers.attention.key_norm.scale"] == PartitionSpec(None, None, None)


def test_an_optimizer_state_is_laid_out_like_its_parameters():
    mesh = build_mesh(MeshConfig(fsdp=8))
    parameters = abstract_decoder(CONFIG)[1]
    moments = jax.eval_shape(optax.adam(1.0).init, parameters)[0].mu
    assert by_path(parameter_shardings(moments, mesh)) == by_path(parameter_shardings(parameters, mesh))


@pytest.mark.parametrize("axes", MESHES, ids=str)
def test_initial_values_do_not_depend_on_the_mesh(axes):
    alone, mesh = by_path(nnx.state(initialize(CONFIG, seed=3))), build_mesh(MeshConfig(**axes))
    spread = by_path(nnx.state(initialize(CONFIG, seed=3, mesh=mesh)))
    for path, leaf in by_path(parameter_shardings(abstract_decoder(CONFIG)[1], mesh)).items():
        np.testing.assert_array_equal(alone[path], spread[path], err_msg=path)
        assert spread[path].sharding == leaf


def test_initial_values_do_not_depend_on_the_padding_but_on_the_seed():
    found = by_path(nnx.state(initialize(CONFIG, seed=3)))
    wider = by_path(nnx.state(initialize(dataclasses.replace(CONFIG, padded_vocabulary_size=512), seed=3)))
    for path, leaf in found.items():
        rows = 200 if LOGICAL_AXES[path][0] == "vocabulary" else None
        np.testing.assert_array_equal(leaf[:rows], wider[path][:rows], err_msg=path)
    assert not np.any(found["embedding.kernel"][200:])
    other = by_path(nnx.state(initialize(CONFIG, seed=4)))
    assert np.any(other["embedding.kernel"] != found["embedding.kernel"])
    layers = found["layers.mlp.up.kernel"]
    assert abs(np.std(layers) - CONFIG.initializer_range) < 1e-3 and np.any(layers[0] != layers[1])


@pytest.mark.parametrize(
    ("name", "change", "axes"),
    [
        ("llama", {}, {"data": 2, "fsdp": 2, "tensor": 2}),
        ("gemma 2", {"num_key_value_heads": 1}, {"fsdp": 4, "tensor": 2}),  # each device has all of the one key head
        ("bloom", {"query_key_norm": "projection"}, {"fsdp": 4, "tensor": 2}),  # a norm over heads that lie apart
    ],
)
def test_loss_and_gradients_do_not_depend_on_the_mesh(variants, name, change, axes):
    rng = np.random.default_rng(0)
    config = dataclasses.replace(variants[name], **change)
    graph, drawn = nnx.split(initialize(config, seed=0))
    ids = rng.integers(0, config.vocabulary_size, (8, 17)).astype(np.int32)
    segments = np.repeat(np.array([[1, 2, 0]], np.int32), [9, 5, 2], axis=1).repeat(8, axis=0)
    batch = Batch(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        positions=np.tile(np.r_[:9, :5, :2].astype(np.int32), (8, 1)),
        segment_ids=segments,
        loss_weights=(segments > 0).astype(np.float32),
        language_ids=segments % 2,
    )

    def loss_and_gradients(mesh):
        objective = build_objective(ObjectiveConfig(), 2, compute_dtype=jnp.float32, remat="full", mesh=mesh)
        placed = batch if mesh is None else jax.device_put(batch, ShardingRules().sharding(mesh, "batch", "sequence"))
        run = jax.value_and_grad(lambda parameters: objective(nnx.merge(graph, parameters), placed).loss)
        if mesh is None:
            return jax.jit(run)(drawn)
        shardings = parameter_shardings(drawn, mesh)
        return jax.jit(run, out_shardings=(None, shardings))(jax.device_put(drawn, shardings))

    expected_loss, expected = loss_and_gradients(None)
    largest = max(np.abs(gradient).max() for gradient in by_path(expected).values())
    loss, gradients = loss_and_gradients(build_mesh(MeshConfig(**axes)))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    found = by_path(gradients)
    for path, gradient in by_path(expected).items():
        # Softmax does not see a key's bias unless keys are turned: such a gradient is nothing but rounding.
        error = np.abs(found[path] - gradient).max() / (np.abs(gradient).max() + 0.1 * largest)
        assert error < 1e-5, f"{path}: {error}"
