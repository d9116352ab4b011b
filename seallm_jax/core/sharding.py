"""Which mesh axes each logical axis is split over: one mapping for storage, one for compute."""

from __future__ import annotations

import dataclasses
import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """Logical axis -> mesh axes. Parameters are stored fully split (ZeRO-3); activations follow rows and positions.

    The fields are the logical axes that the model and the batch use.
    """

    # activations
    batch: MeshAxes = ("data", "fsdp")
    sequence: MeshAxes = "context"
    # parameters
    layers: MeshAxes = None
    hidden: MeshAxes = "fsdp"
    vocabulary: MeshAxes = "tensor"
    heads: MeshAxes = "tensor"
    key_value_heads: MeshAxes = "tensor"
    head_size: MeshAxes = None
    intermediate: MeshAxes = "tensor"
    norm: MeshAxes = None

    def spec(self, *axes: str | None) -> PartitionSpec:
        """PartitionSpec of an array whose dimensions carry these logical axes. Raises ValueError for a collision."""
        entries = tuple(None if axis is None else getattr(self, axis) for axis in axes)
        used = [name for entry in entries if entry for name in ((entry,) if isinstance(entry, str) else entry)]
        if len(set(used)) != len(used):
            raise ValueError(f"logical axes {axes} map to mesh axes {entries}, which repeat")
        return PartitionSpec(*entries)

    def sharding(self, mesh: Mesh, *axes: str | None, shape: tuple[int, ...] | None = None) -> NamedSharding:
        """Sharding on `mesh`. With `shape`, an axis whose size its mesh axes do not divide is replicated instead."""
        spec = self.spec(*axes)
        if shape is not None:
            spec = PartitionSpec(
                *(entry if size % extent(mesh, entry) == 0 else None for entry, size in zip(spec, shape, strict=True))
            )
        return NamedSharding(mesh, spec)


def constrain(array: jax.Array, mesh: Mesh | None, rules: ShardingRules, *axes: str | None) -> jax.Array:
    """Asks the compiler to lay `array` out by its logical axes; a no-op without a mesh."""
    if mesh is None:
        return array
    return jax.lax.with_sharding_constraint(array, rules.sharding(mesh, *axes, shape=array.shape))


def extent(mesh: Mesh, entry: MeshAxes) -> int:
    """Devices over which an entry of a PartitionSpec splits a dimension."""
    return math.prod(mesh.shape[name] for name in ((entry,) if isinstance(entry, str) else entry or ()))
