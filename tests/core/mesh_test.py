"""Mesh shapes and sharding rules on eight emulated devices."""

import jax
import pytest
from jax.sharding import PartitionSpec

from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.core.vocabulary import Vocabulary


def test_free_axis_takes_what_is_left():
    mesh = build_mesh(MeshConfig(fsdp=-1, tensor=2), jax.devices()[:8])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 4, "context": 1, "tensor": 2}


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(fsdp=-1, tensor=3)])
def test_a_shape_that_does_not_fit_is_named(config):
    with pytest.raises(UsageError, match="does not fit 8 devices"):
        build_mesh(config, jax.devices()[:8])


def test_rules():
    rules = ShardingRules()
    mesh = build_mesh(MeshConfig(fsdp=4, tensor=2), jax.devices()[:8])
    assert rules.spec("batch", "sequence", None) == PartitionSpec(("data", "fsdp"), "context", None)
    with pytest.raises(ValueError, match="repeat"):
        rules.spec("batch", "hidden")
    assert rules.sharding(mesh, "hidden", "heads", shape=(6, 4)).spec == PartitionSpec(None, "tensor")


def test_padding():
    assert Vocabulary.padded(48_512, tensor=1) == Vocabulary(48_512, 48_512)
    assert Vocabulary.padded(1000, tensor=2).padded_size == 1024
    with pytest.raises(ValueError, match="logical_size"):
        Vocabulary(10, 5)
