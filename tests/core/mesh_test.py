"""Mesh shapes, slices and sharding rules on eight emulated devices."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from seallm_jax.core import mesh as mesh_module
from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import AXES, build_mesh, nearest_shape
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.core.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class FakeTpu:
    """A device of a slice, as the mesh looks at it."""

    id: int
    slice_index: int
    platform: str = "tpu"


def fake_slices(monkeypatch, *sizes):
    monkeypatch.setattr(mesh_module, "_within_slice", lambda shape, devices: _array(devices).reshape(shape))
    monkeypatch.setattr(jax.sharding, "Mesh", lambda array, axes: array)
    numbers = iter(range(sum(sizes)))
    return [FakeTpu(next(numbers), index) for index, size in enumerate(sizes) for _ in range(size)]


def _array(devices):
    array = np.empty(len(devices), object)
    array[:] = devices
    return array


def test_free_axis_takes_what_is_left():
    mesh = build_mesh(MeshConfig(fsdp=-1, tensor=2), jax.devices()[:8])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 4, "context": 1, "tensor": 2}


@pytest.mark.parametrize(
    ("config", "nearest"),
    [
        (MeshConfig(fsdp=3), "data=1, fsdp=8, context=1, tensor=1"),  # one axis changed
        (MeshConfig(fsdp=-1, tensor=3), "data=1, fsdp=2, context=1, tensor=4"),
        (MeshConfig(data=2, fsdp=6, tensor=1), "data=2, fsdp=4, context=1, tensor=1"),
        (MeshConfig(fsdp=1, context=3, tensor=3), "data=1, fsdp=1, context=2, tensor=4"),
    ],
)
def test_a_shape_that_does_not_fit_is_told_the_nearest(config, nearest):
    with pytest.raises(UsageError, match=f"does not fit 8 devices; the nearest shape that does is {nearest}$"):
        build_mesh(config, jax.devices()[:8])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_nearest_shape_fits_and_nothing_is_nearer(data):
    asked = {axis: data.draw(st.sampled_from([-1, 1, 2, 3, 4, 6, 8, 16]), axis) for axis in AXES}
    devices, slices = data.draw(st.integers(1, 96)), data.draw(st.sampled_from([1, 2, 3]))
    found = nearest_shape(asked, devices, slices)
    if devices % slices:
        assert found is None
        return

    def distance(sizes):
        return sum(abs(math.log(sizes[a] / asked[a])) for a in AXES if asked[a] != -1)

    assert found is not None and math.prod(found.values()) == devices
    assert any(found[axis] % slices == 0 for axis in ("data", "fsdp"))
    other = {axis: 1 for axis in AXES}
    for axis in AXES[2:]:
        other[axis] = data.draw(st.sampled_from([n for n in range(1, devices + 1) if devices // slices % n == 0]), axis)
    other["fsdp"] = devices / other["context"] / other["tensor"]
    if other["fsdp"] % slices == 0:
        assert distance(found) <= distance(other) + 1e-5


@pytest.mark.parametrize(
    ("config", "shape", "between"),
    [
        (MeshConfig(data=2, slices=2), {"data": 2, "fsdp": 4}, 0),
        (MeshConfig(slices=2, tensor=2), {"fsdp": 4, "tensor": 2}, 1),  # data cannot be divided, so fsdp
        (MeshConfig(data=4, fsdp=1, tensor=2, slices=4), {"data": 4, "tensor": 2}, 0),
    ],
)
def test_one_axis_runs_over_the_slices(config, shape, between):
    """Devices without a slice are counted off in their order; those of one lie together on all other axes."""
    mesh = build_mesh(config, jax.devices()[:8])
    assert {axis: size for axis, size in mesh.shape.items() if size > 1} == shape
    size = 8 // config.slices
    slices = np.split(mesh.devices, config.slices, between)
    for number, part in enumerate(slices):
        assert sorted(d.id for d in part.reshape(-1)) == list(range(number * size, (number + 1) * size))


def test_tpus_know_their_slices(monkeypatch):
    devices = fake_slices(monkeypatch, 4, 4)
    array = build_mesh(MeshConfig(data=-1, fsdp=2), devices[::-1])
    assert [[d.slice_index for d in row] for row in array[:, :, 0, 0]] == [[0, 0]] * 2 + [[1, 1]] * 2
    with pytest.raises(UsageError, match="slices is 4, and the devices make slices of 4, 4 devices"):
        build_mesh(MeshConfig(slices=4), devices)
    with pytest.raises(UsageError, match="slices of 4, 2 devices"):
        build_mesh(MeshConfig(), fake_slices(monkeypatch, 4, 2))
    with pytest.raises(
        UsageError, match="8 devices in 2 slices; the nearest .* is data=1, fsdp=2, context=1, tensor=4"
    ):
        build_mesh(MeshConfig(fsdp=1, tensor=8), devices)


def test_slices_that_do_not_divide():
    with pytest.raises(UsageError, match="slices is 3, which does not divide 8 devices; use 2"):
        build_mesh(MeshConfig(slices=3), jax.devices()[:8])
    with pytest.raises(ValueError, match="slices is -1"):
        MeshConfig(slices=-1)


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
