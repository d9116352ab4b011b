"""Names of slices."""

from __future__ import annotations

from seallm_jax.planning.topology import Topology


def test_names():
    assert Topology.parse("V5E:16x16").devices == 256
    assert Topology.parse("v5p:2x2x4").name == "v5p:2x2x4" and Topology.parse("v5p:2x2x4").devices == 16
