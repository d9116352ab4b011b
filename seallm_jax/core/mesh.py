"""The device mesh: axes data, fsdp, context, tensor, over one or several slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import MeshConfig

if TYPE_CHECKING:
    import jax

AXES = ("data", "fsdp", "context", "tensor")
BETWEEN_SLICES = ("data", "fsdp")  # axes that may run over the slow network, the first that can be divided


def build_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh with the axes data, fsdp, context, tensor over `devices` (all devices of all hosts by default).

    Devices of a slice lie next to one another on every axis, so that only the one that runs over the slices uses the
    data centre's network.

    Raises:
      UsageError: axis sizes or slices that do not fit the devices; it names the nearest sizes that do.
    """
    # here, so that commands which only name a mesh start without JAX
    import jax
    import numpy as np

    slices = _slices(config.slices, list(jax.devices() if devices is None else devices))
    sizes = _sizes(config, sum(map(len, slices)), len(slices))
    between = next(axis for axis in BETWEEN_SLICES if sizes[axis] % len(slices) == 0)
    shape = tuple(sizes[axis] // (len(slices) if axis == between else 1) for axis in AXES)
    array = np.concatenate([_within_slice(shape, part) for part in slices], axis=AXES.index(between))
    return jax.sharding.Mesh(array, AXES)


def _slices(wanted: int, devices: list[jax.Device]) -> list[list[jax.Device]]:
    """The devices by slice. TPUs know theirs; others are counted off in their order."""
    if devices[0].platform == "tpu":
        by_slice: dict[int, list[jax.Device]] = {}
        for device in devices:
            by_slice.setdefault(getattr(device, "slice_index", 0), []).append(device)
        found = [by_slice[index] for index in sorted(by_slice)]
        if wanted not in (0, len(found)) or len(set(map(len, found))) > 1:
            raise UsageError(
                f"config.mesh.slices is {wanted}, and the devices make slices of {', '.join(map(str, map(len, found)))}"
                " devices; slices must be as many as there are, and of one size; 0 takes those that there are"
            )
        return found
    wanted = wanted or 1
    if len(devices) % wanted:
        nearest = min(_divisors(len(devices)), key=lambda size: abs(size - wanted))
        raise UsageError(f"config.mesh.slices is {wanted}, which does not divide {len(devices)} devices; use {nearest}")
    size = len(devices) // wanted
    return [devices[start : start + size] for start in range(0, len(devices), size)]


def _sizes(config: MeshConfig, devices: int, slices: int) -> dict[str, int]:
    """Devices along each axis, the free one filled in."""
    asked = {axis: getattr(config, axis) for axis in AXES}
    sizes = dict(asked)
    known = math.prod(size for size in sizes.values() if size > 0)
    if -1 in asked.values() and devices % known == 0:
        sizes[next(axis for axis in AXES if asked[axis] == -1)] = devices // known
    if math.prod(sizes.values()) != devices or not _spans(sizes, slices):
        over = f"{devices} devices" if slices == 1 else f"{devices} devices in {slices} slices"
        near = nearest_shape(asked, devices, slices)
        way_out = f"the nearest shape that does is {_described(near)}" if near else "use another number of devices"
        raise UsageError(f"config.mesh is {_described(asked)}, which does not fit {over}; {way_out}")
    return sizes


def nearest_shape(asked: Mapping[str, int], devices: int, slices: int = 1) -> dict[str, int] | None:
    """The sizes that fit `devices` and are nearest to those asked for, by the factors between them; -1 may be any.

    Of equals, the one that changes fewer axes, and tensor and context less than the others. None when slices that
    data and fsdp cannot be divided by leave no shape.
    """

    def distance(sizes: dict[str, int]) -> Any:
        factors = {a: 0.0 if asked[a] == -1 else round(abs(math.log(sizes[a] / asked[a])), 6) for a in AXES}
        changed = sum(map(bool, factors.values()))
        return sum(factors.values()), changed, factors["tensor"], factors["context"], factors["data"]

    shapes = (dict(zip(AXES, sizes, strict=True)) for sizes in _factors(devices, len(AXES)))
    return min((sizes for sizes in shapes if _spans(sizes, slices)), key=distance, default=None)


def _within_slice(shape: tuple[int, ...], devices: list[jax.Device]) -> Any:
    """Devices of one slice as an array, neighbours in the machine next to one another."""
    import numpy as np

    if devices[0].platform == "cpu":
        return np.array(devices).reshape(shape)
    from jax.experimental import mesh_utils

    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (AssertionError, NotImplementedError, ValueError) as error:
        sizes = _described(dict(zip(AXES, shape, strict=True)))
        reason = str(error).partition("\n")[0]
        raise UsageError(f"config.mesh cannot lay {sizes} over {len(devices)} devices of a slice: {reason}") from error


def _spans(sizes: Mapping[str, int], slices: int) -> bool:
    return any(sizes[axis] % slices == 0 for axis in BETWEEN_SLICES)


def _described(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in sizes.items())


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _factors(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number as a product of so many factors, in order."""
    if parts == 1:
        yield (number,)
        return
    for first in _divisors(number):
        yield from ((first, *rest) for rest in _factors(number // first, parts - 1))
