from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PRELUDE = """
import json, sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig

topology, cases = json.load(sys.stdin)
devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
devices = [device for device in devices if device.core_on_chip == 0]  # a mesh of v4 takes one a chip
found = []
"""


@pytest.fixture
def compile_for_tpu():
    """Runs a script in a process of its own that has the TPU compiler, with its `devices` and the `cases` to compile.

    Returns what the script leaves in `found`.
    """
    pytest.importorskip("libtpu")
    from seallm_jax.planning.compile import LIBTPU_ENVIRONMENT

    def run(script: str, topology: str, cases: list) -> list:
        child = subprocess.run(
            [sys.executable, "-c", f"{PRELUDE}{script}print(json.dumps(found))"],
            input=json.dumps([topology, cases]),
            env=os.environ | LIBTPU_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert child.returncode == 0, child.stderr[-2000:]
        return json.loads(child.stdout.splitlines()[-1])

    return run
