"""Plans that nothing was compiled for."""

from __future__ import annotations

import dataclasses
from typing import Any

from seallm_jax.planning.plan import Plan
from seallm_jax.planning.step_time import StepTime
from seallm_jax.planning.topology import GIB


def step_time(seconds: float) -> StepTime:
    parts = {"matmul": 0.8 * seconds, "attention": 0.15 * seconds, "exposed_all_reduce": 0.05 * seconds}
    return StepTime(seconds, 0.9 * seconds, 1.1 * seconds, parts, 0.1, 1e15, 0.0, {})


def plan(**changes: Any) -> Plan:
    """256 rows of 2048 positions on 256 devices; half a second, 1e13 operations on a chip of 1e14 a second."""
    values = Plan(
        topology="v5e:16x16",
        devices=256,
        mesh={"data": 1, "fsdp": 256, "context": 1, "tensor": 1},
        batch_rows=256,
        accumulation=1,
        remat="full",
        sequence_length=2048,
        schedule_tokens=30_000_000_000,
        parameter_bytes=GIB,
        optimizer_bytes=2 * GIB,
        batch_bytes=1000,
        gradient_bytes=GIB,
        argument_bytes=3 * GIB + 1000,
        output_bytes=3 * GIB,
        alias_bytes=3 * GIB,
        temporary_bytes=4 * GIB,
        host_bytes=0,
        peak_bytes=7 * GIB,
        capacity_bytes=16 * GIB,
        needed_bytes=None,
        model_flops=1e13,
        model_flops_full=2e13,
        peak_flops=1e14,
        compile_seconds=20.0,
        fits=True,
        time=step_time(0.5),
    )
    return dataclasses.replace(values, **changes)


TOO_LARGE = {"fits": False, "peak_bytes": 0, "temporary_bytes": 0, "needed_bytes": 20 * GIB, "time": None}
