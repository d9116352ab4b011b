"""Names of TPU slices, such as v5e:16x16, and what each generation holds."""

from __future__ import annotations

import dataclasses
import math
import re

from seallm_jax.core.errors import UsageError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPU, as its compiler sees it.

    Attributes:
      dimensions: of the torus that its slices are cut from.
      devices_per_chip: JAX devices on a chip. On v4 the compiler's topology has the two cores apart, as on v7x.
      hbm_bytes: memory of a device that a program can use; what `CompileTimeHbmOom` calls available.
    """

    dimensions: int
    devices_per_chip: int
    hbm_bytes: int


CHIPS = {
    "v4": Chip(3, 2, int(15.25 * GIB)),
    "v5e": Chip(2, 1, int(15.75 * GIB)),
    "v5p": Chip(3, 1, int(95.73 * GIB)),
    "v6e": Chip(2, 1, int(31.24 * GIB)),
    "tpu7x": Chip(3, 2, int(94.74 * GIB)),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: the generation and the chips along each dimension."""

    generation: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> Topology:
        """From a name such as v5e:16x16 or v5p:4x4x8.

        Raises:
          UsageError: an unknown generation, or a shape with another number of dimensions than its torus has.
        """
        match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", name.strip().lower())
        known = ", ".join(CHIPS)
        if match is None or match[1] not in CHIPS:
            raise UsageError(f"topology {name!r} is not known; write one of {known}, and the chips, as in v5e:16x16")
        generation, shape = match[1], tuple(int(size) for size in match[2].split("x"))
        chip = CHIPS[generation]
        if len(shape) != chip.dimensions or not all(shape):
            example = "x".join(["4"] * chip.dimensions)
            raise UsageError(
                f"topology {name!r}: {generation} has {chip.dimensions} dimensions, as in {generation}:{example}"
            )
        return cls(generation, shape)

    @property
    def name(self) -> str:
        """The name that the compiler knows."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip:
        """What each chip holds."""
        return CHIPS[self.generation]

    @property
    def devices(self) -> int:
        """JAX devices in the slice."""
        return math.prod(self.shape) * self.chip.devices_per_chip
