"""The process that loads libtpu: `python -m seallm_jax.planning.child ANSWER < REQUEST`, JSON in and out.

Its environment is set by `compile.plan_step`, before libtpu is loaded.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from seallm_jax.core.config import build
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import write_json
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.models.flops import training_flops
from seallm_jax.planning.topology import GIB, Topology
from seallm_jax.training.step import StepProgram, build_step

OUT_OF_MEMORY = "CompileTimeHbmOom"


def main() -> None:
    """Reads the request, compiles, and writes {"plan": ...}, or a message under "usage", "problem" or "error"."""
    answer, request = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
    result: dict[str, Any]
    try:
        result = {"plan": compile_plan(request)}
    except UsageError as error:
        result = {"usage": str(error)}
    except SeallmError as error:
        result = {"problem": str(error)}
    except jax.errors.JaxRuntimeError as error:
        result = {"error": str(error).strip().splitlines()[0][:500]}
    write_json(answer, result)


def compile_plan(request: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Plan`. Raises SeallmError and JaxRuntimeError."""
    model = build(ModelConfig, request["model"], "model")
    train = build(TrainConfig, request["train"], "train")
    packing = build(PackingConfig, request["packing"], "packing")
    topology = Topology.parse(request["topology"])
    devices = topologies.get_topology_desc(topology_name=topology.name, platform="tpu").devices
    mesh = build_mesh(build(MeshConfig, request["mesh"], "config.mesh"), devices)
    program = build_step(
        model,
        train,
        mesh,
        sequence_length=packing.sequence_length,
        total_steps=1000,
        num_languages=request["num_languages"],
        reference_columns=2 * packing.maximum_pairs if train.objective.name == "dpo" else 0,
        # any values: they change neither memory nor time
        first_new_row=model.vocabulary_size - 1,
        token_bytes=np.ones(model.vocabulary_size, np.int32),
    )
    plan = {
        "topology": topology.name,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "batch_rows": train.batch_rows,
        "sequence_length": packing.sequence_length,
        "capacity_bytes": topology.chip.hbm_bytes,
        "model_flops": training_flops(model, train.batch_rows, packing.sequence_length, causal=True) / mesh.size,
    }
    return plan | _argument_sizes(program) | _compile(program, topology.chip.hbm_bytes)


def _compile(program: StepProgram, capacity: int) -> dict[str, Any]:
    start = time.monotonic()
    sizes = dict.fromkeys(("argument_bytes", "output_bytes", "alias_bytes", "temporary_bytes", "peak_bytes"), 0)
    try:
        compiled = program.run.lower(program.abstract_state, program.abstract_batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        needed = _needed_bytes(str(error))
        return sizes | {"needed_bytes": needed, "fits": False, "compile_seconds": time.monotonic() - start}
    memory = compiled.memory_analysis()
    sizes = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
    }
    fits = sizes["peak_bytes"] <= capacity
    return sizes | {"needed_bytes": None, "fits": fits, "compile_seconds": time.monotonic() - start}


def _needed_bytes(message: str) -> int | None:
    """From "... memory required for HLO temporaries (37.44G) exceeds ..." or "Used 37.44G of 31.24G hbm"."""
    match = re.search(r"required[^(]*\(([\d.]+)([KMGT])\)", message) or re.search(r"Used ([\d.]+)([KMGT]) of", message)
    if match is None:
        return None
    return int(float(match[1]) * {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}[match[2]])


def _argument_sizes(program: StepProgram) -> dict[str, int]:
    state = program.abstract_state
    parts = {
        "parameter_bytes": state.params,
        "optimizer_bytes": (state.optimizer_state, state.step, state.skipped),
        "batch_bytes": program.abstract_batch,
    }
    return {name: sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(tree)) for name, tree in parts.items()}


def _bytes_on_a_device(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


if __name__ == "__main__":
    main()
