"""What compiling a step for a pod told."""

from __future__ import annotations

import dataclasses
from typing import Any

from seallm_jax.planning.step_time import StepTime

SECONDS_PER_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Plan:
    """Memory and time of one training step on each device of a TPU slice, from the TPU compiler's own program.

    All bytes are per device. Sizes that the compiler tells only of programs that fit are 0 when it refused. Times are
    predictions; no TPU was there.

    Attributes:
      topology: the slice, such as v5e:16x16.
      devices: JAX devices in it.
      mesh: devices by mesh axis.
      batch_rows: packed rows per step, over all devices.
      accumulation: micro-batches per step.
      remat: what the backward pass computes again.
      sequence_length: positions per row.
      schedule_tokens: positions that the whole stage trains on; 0 where the config does not tell.
      parameter_bytes: parameters.
      optimizer_bytes: optimizer state and counters.
      batch_bytes: the batch.
      gradient_bytes: gradients in float32, which are part of what is temporary.
      argument_bytes: parameters, optimizer state and batch, as the compiler lays them out.
      output_bytes: results; those that reuse an argument's memory included.
      alias_bytes: how much of the results reuses arguments.
      temporary_bytes: activations, gradients, gathered parameters.
      host_bytes: memory of the host that offloading takes, for each device.
      peak_bytes: the most memory in use at any time.
      capacity_bytes: memory of a device that a program can use.
      needed_bytes: what the compiler asked for when it refused, else None.
      model_flops: floating-point operations per device and step that the model needs: 6 x matrix parameters x
        positions, and causal attention to whole rows. Recomputation is not counted.
      model_flops_full: the same with attention between all pairs of positions, as many published figures count.
      peak_flops: bfloat16 operations per second of a device, by its maker; 0 where it is not known.
      compile_seconds: how long the compiler took.
      fits: whether the step runs on this slice.
      time: the predicted time of a step; None where it does not fit, or `time_missing` says why.
      time_missing: why there is no prediction of a step that fits.
    """

    topology: str
    devices: int
    mesh: dict[str, int]
    batch_rows: int
    accumulation: int
    remat: str
    sequence_length: int
    schedule_tokens: int
    parameter_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    gradient_bytes: int
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temporary_bytes: int
    host_bytes: int
    peak_bytes: int
    capacity_bytes: int
    needed_bytes: int | None
    model_flops: float
    model_flops_full: float
    peak_flops: float
    compile_seconds: float
    fits: bool
    time: StepTime | None = None
    time_missing: str = ""

    @property
    def exceeds_bytes(self) -> int:
        """By how much the step exceeds a device's memory; 0 when it fits."""
        return 0 if self.fits else max((self.needed_bytes or 0) - self.capacity_bytes, 0)

    @property
    def step_tokens(self) -> int:
        """Positions of a step, over all devices."""
        return self.batch_rows * self.sequence_length

    @property
    def tokens_per_second(self) -> float | None:
        """Of all devices, predicted; None without a prediction."""
        return None if self.time is None else self.step_tokens / self.time.seconds

    @property
    def days(self) -> float | None:
        """For the whole stage, predicted: steps only, without evaluation, checkpoints and what a pod loses."""
        if self.tokens_per_second is None or not self.schedule_tokens:
            return None
        return self.schedule_tokens / self.tokens_per_second / SECONDS_PER_DAY

    def utilization(self, *, causal: bool) -> float | None:
        """Predicted MFU: the operations that the model needs, as a share of what the device could do meanwhile."""
        if self.time is None or not self.peak_flops:
            return None
        return (self.model_flops if causal else self.model_flops_full) / self.time.seconds / self.peak_flops

    def memory(self) -> dict[str, int]:
        """Bytes on a device by category; they may add up to more than the peak, at which not all of them live."""
        gradients = min(self.gradient_bytes, self.temporary_bytes)
        return {
            "parameters": self.parameter_bytes,
            "optimizer state": self.optimizer_bytes,
            "batch": self.batch_bytes,
            "gradients": gradients,
            "activations and gathered parameters": self.temporary_bytes - gradients,
        }

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Plan:
        """From the fields as plain data."""
        known = {field.name for field in dataclasses.fields(cls)}
        time = values.get("time")
        return cls(**{k: v for k, v in values.items() if k in known} | {"time": time and StepTime(**time)})

    def to_json(self) -> dict[str, Any]:
        """Plain data, what is derived included. `of_json` reads it."""
        derived = {
            "exceeds_bytes": self.exceeds_bytes,
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_day": self.tokens_per_second and self.tokens_per_second * SECONDS_PER_DAY,
            "days": self.days,
            "utilization_causal": self.utilization(causal=True),
            "utilization_full": self.utilization(causal=False),
        }
        return dataclasses.asdict(self) | derived
