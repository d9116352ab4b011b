"""Names of TPU slices, such as v5e:16x16, and what each generation holds."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from seallm_jax.core.errors import UsageError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPU, as its compiler sees it.

    Attributes:
      dimensions: of the torus that its slices are cut from.
      devices_per_chip: JAX devices on a chip. The two cores of v4 are one device, as on the machines; those of v7x not.
      hbm_bytes: memory of a device that a program can use; what `CompileTimeHbmOom` calls available.
    """

    dimensions: int
    devices_per_chip: int
    hbm_bytes: int


CHIPS = {
    "v4": Chip(3, 1, int(30.75 * GIB)),
    "v5e": Chip(2, 1, int(15.75 * GIB)),
    "v5p": Chip(3, 1, int(95.73 * GIB)),
    "v6e": Chip(2, 1, int(31.24 * GIB)),
    "tpu7x": Chip(3, 2, int(94.74 * GIB)),
}


@dataclasses.dataclass(frozen=True)
class Rates:
    """What times of a program are predicted from, all of one JAX device. Matrix units are in `core/peak_flops.py`.

    Attributes:
      device_kind: `jax.Device.device_kind`.
      clock_hz: cycles in a second.
      hbm_bytes: to and from HBM in a second.
      link_bytes: over one link to a neighbour in a second, one way.
      wraps: chips along a dimension of a slice whose ends are linked: multiples of it.
      host_bytes: to or from the host in a second. What is known least; that of v6e is fitted to a published run.
      network_bytes: to or from other slices in a second.
    """

    device_kind: str
    clock_hz: float
    hbm_bytes: float
    link_bytes: float
    wraps: int
    host_bytes: float
    network_bytes: float


RATES = {
    "v5e": Rates("TPU v5 lite", 1.5e9, 819e9, 45e9, 16, 16e9, 6.25e9),
    "v5p": Rates("TPU v5", 1.75e9, 2765e9, 90e9, 4, 16e9, 6.25e9),
    "v6e": Rates("TPU v6 lite", 1.75e9, 1640e9, 90e9, 16, 64e9, 12.5e9),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several slices: the generation, the chips along each dimension of a slice, and how many slices."""

    generation: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, name: str) -> Topology:
        """From a name such as v5e:16x16 or v5p:4x4x8; 2*v5e:16x16 is two slices.

        Raises:
          UsageError: an unknown generation, or a shape with another number of dimensions than its torus has.
        """
        match = re.fullmatch(r"(?:([1-9]\d*)\*)?([a-z0-9]+):(\d+(?:x\d+)*)", name.strip().lower())
        known = ", ".join(CHIPS)
        if match is None or match[2] not in CHIPS:
            raise UsageError(f"topology {name!r} is not known; write one of {known}, and the chips, as in v5e:16x16")
        generation, shape = match[2], tuple(int(size) for size in match[3].split("x"))
        chip = CHIPS[generation]
        if len(shape) != chip.dimensions or not all(shape):
            example = "x".join(["4"] * chip.dimensions)
            raise UsageError(
                f"topology {name!r}: {generation} has {chip.dimensions} dimensions, as in {generation}:{example}"
            )
        return cls(generation, shape, int(match[1] or 1))

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        one = f"{self.generation}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices}*{one}"

    @property
    def description(self) -> dict[str, Any]:
        """Arguments of `jax.experimental.topologies.get_topology_desc`."""
        options: dict[str, Any] = {"topology_name": self.name.rpartition("*")[2], "platform": "tpu"}
        if self.slices > 1:
            options["num_slices"] = self.slices
        if self.generation == "v4":
            options["chip_config_name"] = "megacore"  # both cores as one device; else the compiler has them apart
        return options

    @property
    def chip(self) -> Chip:
        """What each chip holds."""
        return CHIPS[self.generation]

    @property
    def rates(self) -> Rates:
        """How fast a device is. Raises UsageError for generations of which it is not known."""
        if self.generation not in RATES:
            raise UsageError(f"topology {self.name}: times are predicted for {', '.join(RATES)} only")
        return RATES[self.generation]

    @property
    def devices(self) -> int:
        """JAX devices in all slices."""
        return self.slices * math.prod(self.shape) * self.chip.devices_per_chip
