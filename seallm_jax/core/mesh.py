"""The device mesh: axes data, fsdp, context, tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import MeshConfig

if TYPE_CHECKING:
    import jax

AXES = ("data", "fsdp", "context", "tensor")


def build_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh with the axes data, fsdp, context, tensor over `devices` (all devices of all hosts by default).

    Raises:
      UsageError: the axis sizes do not multiply to the number of devices.
    """
    # here, so that commands which only name a mesh start without JAX
    import jax
    import numpy as np

    devices = list(jax.devices() if devices is None else devices)
    sizes = dataclasses.asdict(config)
    known = math.prod(size for size in sizes.values() if size > 0)
    free = [axis for axis, size in sizes.items() if size == -1]
    if free and len(devices) % known == 0:
        sizes[free[0]] = len(devices) // known
    elif free or known != len(devices):
        described = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UsageError(f"config.mesh is {described}, which does not fit {len(devices)} devices")
    shape = tuple(sizes[axis] for axis in AXES)
    if devices[0].platform == "cpu":
        array = np.array(devices).reshape(shape)
    else:
        from jax.experimental import mesh_utils

        array = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(array, AXES)
