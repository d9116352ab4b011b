"""The process that loads libtpu: `python -m seallm_jax.planning.child ANSWER < REQUEST`, JSON in and out.

Its environment is set by `compile.asked_compiler`, before libtpu is loaded.
"""

from __future__ import annotations

import functools
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
from seallm_jax.core.peak_flops import peak_flops
from seallm_jax.core.schema import GenerationConfig, MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.models.flops import training_flops
from seallm_jax.models.remat import HOST_MEMORY
from seallm_jax.planning.generation_programs import GenerationPrograms
from seallm_jax.planning.interconnect import places_of
from seallm_jax.planning.program_text import compile_with_text
from seallm_jax.planning.topology import GIB, Topology
from seallm_jax.training import partition
from seallm_jax.training.step import StepProgram, build_step

OUT_OF_MEMORY = "CompileTimeHbmOom"
NO_TEXT = "this version of the compiler did not write its program down"


def main() -> None:
    """Reads the request, compiles, and writes what came of it, or a message under "usage", "problem" or "error".

    Texts of programs are written beside the answer, one file for each.
    """
    answer, request = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
    compile_request = _generation if "generation" in request else _training
    result: dict[str, Any]
    try:
        result = compile_request(request, answer.parent)
    except UsageError as error:
        result = {"usage": str(error)}
    except SeallmError as error:
        result = {"problem": str(error)}
    except jax.errors.JaxRuntimeError as error:
        result = {"error": str(error).strip().splitlines()[0][:500]}
    write_json(answer, result)


def _training(request: dict[str, Any], directory: pathlib.Path) -> dict[str, Any]:
    """{"plan": fields of a `Plan`, and what `_compile` adds}."""
    model = build(ModelConfig, request["model"], "model")
    train = build(TrainConfig, request["train"], "train")
    packing = build(PackingConfig, request["packing"], "packing")
    topology, mesh = _mesh(request)
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
    rows, whole = (model, train.batch_rows, packing.sequence_length), train.adapter is None
    plan = {
        "batch_rows": train.batch_rows,
        "accumulation": train.accumulation,
        "remat": train.remat,
        "sequence_length": packing.sequence_length,
        "model_flops": training_flops(*rows, causal=True, weight_gradients=whole) / mesh.size,
        "model_flops_full": training_flops(*rows, causal=False, weight_gradients=whole) / mesh.size,
    }
    plan |= _devices(topology, mesh) | _argument_sizes(program)
    lowered = program.run.lower(program.abstract_state, program.abstract_batch)
    _, told = _compile("step", lowered, topology=topology, directory=directory, predict=request["predict"])
    return {"plan": plan | told, "places": places_of(mesh.devices.flat)}


def _generation(request: dict[str, Any], directory: pathlib.Path) -> dict[str, Any]:
    """{"plan": what the programs of generation share, "programs": what `_compile` told of each}."""
    model = build(ModelConfig, request["model"], "model")
    generation = build(GenerationConfig, request["generation"], "generation")
    topology, mesh = _mesh(request)
    programs = GenerationPrograms(model, generation, mesh, rows=request["rows"], positions=request["positions"])
    plan = _devices(topology, mesh) | {"parameter_bytes": _bytes_on_a_device(programs.parameters), "cache_bytes": 0}
    compile_part = functools.partial(_compile, topology=topology, directory=directory, predict=request["predict"])
    start, told = compile_part("start", programs.start())
    told_of = {"start": told}
    if start is not None:
        state = programs.state(start.output_shardings)
        plan["cache_bytes"] = _bytes_on_a_device(state.cache)
        told_of["advance"] = compile_part("advance", programs.advance(state))[1]
        told_of["whole"] = compile_part("whole", programs.whole(), predict=False)[1]
    return {"plan": plan, "programs": told_of, "places": places_of(mesh.devices.flat)}


def _mesh(request: dict[str, Any]) -> tuple[Topology, jax.sharding.Mesh]:
    topology = Topology.parse(request["topology"])
    devices = topologies.get_topology_desc(**topology.description).devices
    return topology, build_mesh(build(MeshConfig, request["mesh"], "config.mesh"), devices)


def _devices(topology: Topology, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    return {
        "topology": topology.name,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "capacity_bytes": topology.chip.hbm_bytes,
        "peak_flops": peak_flops(mesh.devices.flat[0].device_kind) or 0.0,
    }


def _compile(
    name: str, lowered: Any, *, topology: Topology, directory: pathlib.Path, predict: bool
) -> tuple[Any, dict[str, Any]]:
    """(the program, or None where it does not fit; its sizes); writes its text to a file called `name` to predict."""
    start = time.monotonic()
    sizes = ("argument_bytes", "output_bytes", "alias_bytes", "temporary_bytes", "peak_bytes", "host_bytes")
    told: dict[str, Any] = dict.fromkeys(sizes, 0) | {"needed_bytes": None, "fits": False, "time_missing": ""}
    try:
        text = None
        if predict:
            compiled, text = compile_with_text(lowered, directory / f"{name}-dumps")
        else:
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        return None, told | {"needed_bytes": _needed_bytes(str(error)), "compile_seconds": time.monotonic() - start}
    memory = compiled.memory_analysis()
    host = memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes
    peak = memory.peak_memory_in_bytes - host  # the compiler counts the host's memory, too
    fits = peak <= topology.chip.hbm_bytes
    told |= {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": peak,
        "host_bytes": host,
        "needed_bytes": None if fits else peak,
        "fits": fits,
        "compile_seconds": time.monotonic() - start,
    }
    if fits and predict:
        if text is None:
            told["time_missing"] = NO_TEXT
        else:
            text.rename(directory / name)
    return compiled, told


def _needed_bytes(message: str) -> int | None:
    """From "... memory required for HLO temporaries (37.44G) exceeds ..." or "Used 37.44G of 31.24G hbm"."""
    match = re.search(r"required[^(]*\(([\d.]+)([KMGT])\)", message) or re.search(r"Used ([\d.]+)([KMGT]) of", message)
    if match is None:
        return None
    return int(float(match[1]) * {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}[match[2]])


def _argument_sizes(program: StepProgram) -> dict[str, int]:
    state = program.abstract_state
    trained, _ = partition.split(state.params, program.trainable)
    return {
        "parameter_bytes": _bytes_on_a_device(state.params),
        "optimizer_bytes": _bytes_on_a_device((state.optimizer_state, state.step, state.skipped)),
        "batch_bytes": _bytes_on_a_device(program.abstract_batch),
        "gradient_bytes": sum(4 * _elements_on_a_device(leaf) for leaf in jax.tree.leaves(trained)),
    }


def _bytes_on_a_device(tree: Any) -> int:
    """Bytes in the memory of a device itself."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.sharding.memory_kind != HOST_MEMORY]
    return sum(_elements_on_a_device(leaf) * leaf.dtype.itemsize for leaf in leaves)


def _elements_on_a_device(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


if __name__ == "__main__":
    main()
