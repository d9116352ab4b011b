"""Compiles the training step for a TPU slice, without a TPU, in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.paths import read_json
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.topology import Topology

# Read once by libtpu when it is loaded. They keep it from looking for a TPU, and from refusing a second process.
LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}


def plan_step(
    model: ModelConfig,
    train: TrainConfig,
    packing: PackingConfig,
    mesh: MeshConfig,
    topology: str,
    *,
    num_languages: int = 16,
    timeout: float = 3600,
) -> Plan:
    """Compiles the very step that training runs, for the devices of `topology`, and tells the memory it takes.

    Nothing of the model is allocated. The TPU compiler runs in a child process, because libtpu reads its environment
    once and would claim this process.

    Args:
      model: shape of the model, vocabulary sizes filled in.
      train: objective, rows, accumulation, dtype, remat.
      packing: positions per row, and pairs per row for preferences.
      mesh: mesh axes over the devices of the slice.
      topology: the slice, such as v5e:16x16.
      num_languages: length of the loss sums by language.
      timeout: seconds after which the compiler is stopped.

    Raises:
      UsageError: an unknown topology, or a mesh or batch that does not fit it.
      SeallmError: libtpu is not installed, or the compiler failed other than for lack of memory.
    """
    name = Topology.parse(topology).name
    if importlib.util.find_spec("libtpu") is None:
        raise SeallmError("planning needs the TPU compiler; install it with: pip install libtpu")
    request = {
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(train),
        "packing": dataclasses.asdict(packing),
        "mesh": dataclasses.asdict(mesh),
        "topology": name,
        "num_languages": num_languages,
    }
    with tempfile.TemporaryDirectory(prefix="seallm-plan-") as directory:
        answer = pathlib.Path(directory) / "answer.json"
        errors = _run_child(request, answer, name, timeout)
        if not answer.exists():
            raise SeallmError(f"the TPU compiler failed for {name}: {errors}")
        result = read_json(answer)
    if "usage" in result:
        raise UsageError(result["usage"])
    if "problem" in result:
        raise SeallmError(result["problem"])
    if "error" in result:
        raise SeallmError(f"the TPU compiler failed for {name}: {result['error']}")
    return Plan(**result["plan"])


def _run_child(request: dict, answer: pathlib.Path, name: str, timeout: float) -> str:
    """Runs the child until it has written `answer`; returns the last line of its errors."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "seallm_jax.planning.child", str(answer)],
            input=json.dumps(request),
            env=os.environ | LIBTPU_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise SeallmError(f"compiling for {name} took more than {timeout:.0f} s and was stopped") from None
    lines = child.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit status {child.returncode}"
