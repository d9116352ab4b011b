"""What compiling a step for a pod told."""

from __future__ import annotations

import dataclasses
from typing import Any

from seallm_jax.planning.topology import GIB


@dataclasses.dataclass(frozen=True)
class Plan:
    """Memory of one training step on each device of a TPU slice, from the TPU compiler itself.

    All bytes are per device. Sizes that the compiler tells only of programs that fit are 0 when it refused.

    Attributes:
      topology: the slice, such as v5e:16x16.
      devices: JAX devices in it.
      mesh: devices by mesh axis.
      batch_rows: packed rows per step, over all devices.
      sequence_length: positions per row.
      parameter_bytes: parameters.
      optimizer_bytes: optimizer state and counters.
      batch_bytes: the batch.
      argument_bytes: the three above, as the compiler lays them out.
      output_bytes: results; those that reuse an argument's memory included.
      alias_bytes: how much of the results reuses arguments.
      temporary_bytes: activations, gradients, gathered parameters.
      peak_bytes: the most memory in use at any time.
      capacity_bytes: memory of a device that a program can use.
      needed_bytes: what the compiler asked for when it refused, else None.
      model_flops: floating-point operations per device and step that the model needs: 6 x matrix parameters x
        positions, and causal attention to whole rows. Recomputation is not counted.
      compile_seconds: how long the compiler took.
      fits: whether the step runs on this slice.
    """

    topology: str
    devices: int
    mesh: dict[str, int]
    batch_rows: int
    sequence_length: int
    parameter_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temporary_bytes: int
    peak_bytes: int
    capacity_bytes: int
    needed_bytes: int | None
    model_flops: float
    compile_seconds: float
    fits: bool

    @property
    def exceeds_bytes(self) -> int:
        """By how much the step exceeds a device's memory; 0 when it fits."""
        return 0 if self.fits else max((self.needed_bytes or 0) - self.capacity_bytes, 0)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"exceeds_bytes": self.exceeds_bytes}

    def rows(self) -> list[tuple[str, str]]:
        """The plan as a table of two columns."""
        mesh = ", ".join(f"{axis}={size}" for axis, size in self.mesh.items() if size > 1) or "one device"
        rows = [
            ("topology", f"{self.topology}, {self.devices} devices"),
            ("mesh", mesh),
            ("batch", f"{self.batch_rows} rows x {self.sequence_length} positions"),
            ("parameters", _gib(self.parameter_bytes)),
            ("optimizer state", _gib(self.optimizer_bytes)),
            ("batch on a device", _gib(self.batch_bytes)),
        ]
        if self.fits:
            rows += [
                ("temporary", _gib(self.temporary_bytes)),
                ("peak", f"{_gib(self.peak_bytes)} of {_gib(self.capacity_bytes)}"),
                ("verdict", "fits"),
            ]
        else:
            needed = "more memory" if self.needed_bytes is None else _gib(self.needed_bytes)
            rows += [
                ("needed", f"{needed} of {_gib(self.capacity_bytes)}"),
                (
                    "verdict",
                    "does not fit"
                    + (f", by {_gib(self.exceeds_bytes)}" if self.needed_bytes else "")
                    + "; use more accumulation, remat=full, fewer batch_rows, or more devices",
                ),
            ]
        return rows + [
            ("model FLOPs", f"{self.model_flops / 1e12:.4g} TFLOP per device and step"),
            ("compiled in", f"{self.compile_seconds:.1f} s"),
        ]


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"
