"""Where optimizer state lies: as its parameter, also where it has only some of the parameter's dimensions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, OptimizerConfig
from seallm_jax.models.layout import parameter_shardings, path_name
from seallm_jax.training.optimizer import build_optimizer
from seallm_jax.training.state import TrainState, abstract_state, shardings_of

SHAPES = {
    "embedding": {"kernel": (256, 128)},
    "final_norm": {"scale": (128,)},
    "layers": {"mlp": {"up": {"kernel": (2, 128, 384)}}},
}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_moments_lie_as_their_parameters(name):
    mesh = build_mesh(MeshConfig(fsdp=4, tensor=2), jax.devices()[:8])
    is_shape = {"is_leaf": lambda leaf: isinstance(leaf, tuple)}
    shapes = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, **is_shape)
    params = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        parameter_shardings(shapes, mesh),
    )
    optimizer = build_optimizer(OptimizerConfig(name=name), 0.1)
    abstract = abstract_state(params, optimizer, mesh)
    assert params["layers"]["mlp"]["up"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    found = {
        (name, leaf.shape): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.optimizer_state)
        for name in ("up.kernel", "embedding.kernel", "scale")
        if path_name(path).endswith(name)
    }
    if name == "adafactor":
        assert found["up.kernel", (2, 128)] == PartitionSpec(None, "fsdp")
        assert found["up.kernel", (2, 384)] == PartitionSpec(None, "tensor")
    else:
        assert found["up.kernel", (2, 128, 384)] == PartitionSpec(None, "fsdp", "tensor")
        assert found["embedding.kernel", (256, 128)] == params["embedding"]["kernel"].sharding.spec
    values = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), params)
    state = TrainState.create(values, optimizer, shardings_of(abstract))
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
