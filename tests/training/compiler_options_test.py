"""What the compiler is told of each kind of device. That it takes the options is shown where steps are compiled."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from seallm_jax.training.compiler_options import compiler_options


@dataclasses.dataclass(frozen=True)
class Device:
    platform: str
    device_kind: str


def test_collectives_run_beside_other_work():
    options = compiler_options(Device("tpu", "TPU v5 lite"))
    assert options and options["xla_enable_async_all_reduce"] == "true"
    options = compiler_options(Device("tpu", "TPU v6 lite"))
    assert options and options["xla_tpu_enable_sparse_core_collective_offload_all_gather"] == "true"


@pytest.mark.parametrize("device", [Device("gpu", "NVIDIA H200"), Device("tpu", "TPU v9"), jax.devices("cpu")[0]])
def test_others_are_compiled_by_default(device):
    assert compiler_options(device) is None
