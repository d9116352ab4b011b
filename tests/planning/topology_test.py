"""Names of slices."""

from __future__ import annotations

import pytest

from seallm_jax.core.errors import UsageError
from seallm_jax.core.peak_flops import peak_flops
from seallm_jax.planning.bundles import CORES
from seallm_jax.planning.topology import RATES, Topology


def test_names():
    assert Topology.parse("V5E:16x16").devices == 256
    assert Topology.parse("v5p:2x2x4").name == "v5p:2x2x4" and Topology.parse("v5p:2x2x4").devices == 16
    with pytest.raises(UsageError, match=r"topology '0\*v5e:4x4' is not known"):
        Topology.parse("0*v5e:4x4")


def test_several_slices_and_both_cores_as_one():
    two = Topology.parse("2*v5e:4x4")
    assert two.name == "2*v5e:4x4" and two.devices == 32 and Topology.parse(two.name) == two
    assert two.description == {"topology_name": "v5e:4x4", "platform": "tpu", "num_slices": 2}
    one = Topology.parse("v4:2x2x2")
    assert one.devices == 8 and one.description["chip_config_name"] == "megacore"


def test_facts_of_chips_agree():
    for generation, rates in RATES.items():
        core = CORES[generation]
        assert peak_flops(rates.device_kind) == pytest.approx(core.clock_hz * core.flops_per_cycle, rel=0.01)
    with pytest.raises(UsageError, match=r"topology v4:2x2x1: times are predicted for v5e, v5p, v6e only"):
        _ = Topology.parse("v4:2x2x1").rates
