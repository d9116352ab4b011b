"""One way to train on a slice, of those that a search compares."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from seallm_jax.core.mesh import AXES
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig

LANES = 128  # positions of a device must be a multiple, for attention kernels
SETTINGS = ("remat", "batch_rows", "accumulation")  # of a stage, that a candidate sets
LARGER_BATCHES = (2, 4)  # times the rows of the config that are tried, too
# `dots` is left out: attention is a kernel here, so that it keeps what `dots_with_no_batch_dims` keeps
REMATS = tuple(name for name in get_args(get_type_hints(TrainConfig)["remat"]) if name != "dots")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What a search changes.

    Attributes:
      mesh: devices by axis, none of them free.
      remat: what the backward pass computes again.
      batch_rows: rows of a step, over all devices.
      accumulation: micro-batches of a step.
    """

    mesh: MeshConfig
    remat: str
    batch_rows: int
    accumulation: int

    @property
    def shards(self) -> int:
        """Devices that rows are split over."""
        return self.mesh.data * self.mesh.fsdp

    @property
    def rows_on_a_device(self) -> int:
        """Of a micro-batch."""
        return self.batch_rows // self.accumulation // self.shards

    @property
    def name(self) -> str:
        """Short, for progress and plots."""
        axes = " ".join(f"{axis}={getattr(self.mesh, axis)}" for axis in AXES if getattr(self.mesh, axis) > 1)
        rows = f"{self.batch_rows} rows as {self.accumulation} x {self.rows_on_a_device}"
        return f"{axes or 'one device'}, {self.remat}, {rows}"

    def applied(self, train: TrainConfig) -> TrainConfig:
        """The stage with these settings. Raises ValueError where a curriculum stage has rows of its own that forbid."""
        values: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS}
        return dataclasses.replace(train, **values)

    def overrides(self, stage: str, other: Candidate) -> list[str]:
        """Arguments that set a config of another candidate to this one."""
        mesh = [f"--config.mesh.{axis}={getattr(self.mesh, axis)}" for axis in AXES]
        values = [
            f"--config.{stage}.{key}={getattr(self, key)}"
            for key in SETTINGS
            if getattr(self, key) != getattr(other, key)
        ]
        return (mesh if self.mesh != other.mesh else []) + values


def candidates(
    model: ModelConfig, train: TrainConfig, packing: PackingConfig, mesh: MeshConfig, devices: int
) -> Iterator[Candidate]:
    """All legal ones: meshes that divide model and rows, remat policies, accumulation, and larger batches.

    Larger batches are those of `LARGER_BATCHES`, each in micro-batches that the config's own rows would not fill.
    """
    own_rows = any(stage.batch_rows for stage in train.curriculum)
    for sizes in meshes(model, packing.sequence_length, devices, mesh.slices):
        laid_out = dataclasses.replace(mesh, **dict(zip(AXES, sizes, strict=True)))
        shards = laid_out.data * laid_out.fsdp
        for factor in (1,) if own_rows else (1, *LARGER_BATCHES):
            rows = factor * train.batch_rows
            if rows % shards:
                continue
            for accumulation in divisors(rows // shards):
                if factor > 1 and rows // accumulation <= train.batch_rows:
                    continue
                for remat in REMATS:
                    found = Candidate(laid_out, remat, rows, accumulation)
                    try:
                        found.applied(train)
                    except ValueError:
                        continue
                    yield found


def meshes(model: ModelConfig, positions: int, devices: int, slices: int = 0) -> Iterator[tuple[int, ...]]:
    """Sizes of the axes that split heads, MLP, hidden size and positions evenly; (data, fsdp, context, tensor).

    Devices that share query heads may be more than key/value heads, if each then has those that it reads.
    """
    pairs = model.num_key_value_heads
    for tensor in divisors(math.gcd(devices, model.num_heads, model.intermediate_size)):
        if pairs % tensor and tensor % pairs:
            continue
        for context in divisors(math.gcd(devices // tensor, max(positions // LANES, 1))):
            for fsdp in divisors(math.gcd(devices // tensor // context, model.hidden_size)):
                data = devices // tensor // context // fsdp
                if data % max(slices, 1) == 0 or fsdp % max(slices, 1) == 0:
                    yield data, fsdp, context, tensor


def divisors(number: int) -> list[int]:
    """In ascending order."""
    return [size for size in range(1, number + 1) if number % size == 0]
