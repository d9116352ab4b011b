"""Linear cross-entropy, compiled in the process that has the TPU compiler (`kernel_child.py`)."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.kernels.cross_entropy import chunked_xla, pallas_tpu
from seallm_jax.planning.bundles import CORES, read_step
from seallm_jax.planning.estimated_cycles import estimated_cycles
from seallm_jax.planning.linear_cross_entropy import LogProbability, ways, with_gradients
from seallm_jax.planning.product_flops import product_flops

_KERNELS = ("linear_cross_entropy_statistics", "linear_cross_entropy_d_logits")
_CHUNKS = {"seallm pallas_tpu": pallas_tpu.CHUNK, "seallm chunked_xla": chunked_xla.CHUNK}


def cross_entropy_compilers(request: dict[str, Any]) -> dict[str, Callable[[pathlib.Path], dict[str, Any]]]:
    """By the names of `ways`: compiles one for the request, and tells its costs from the folder of dumps."""
    devices: Any = topologies.get_topology_desc(topology_name=request["topology"], platform="tpu").devices
    mesh = build_mesh(MeshConfig(fsdp=1), devices[:1])
    wanted = {name: way for name, way in ways("tpu", mesh).items() if not request["only"] or name in request["only"]}
    return {name: functools.partial(_compile, request, mesh, name, way) for name, way in wanted.items()}


def _compile(
    request: dict[str, Any], mesh: jax.sharding.Mesh, name: str, way: LogProbability, dumps: pathlib.Path
) -> dict[str, Any]:
    N, M, V = (request[key] for key in ("tokens", "hidden_size", "vocabulary_size"))
    dtype, matrix_dtype = jnp.dtype(request["dtype"]), jnp.dtype(request["matrix_dtype"])
    everywhere = NamedSharding(mesh, PartitionSpec())
    shapes = [((N, M), dtype), ((V, M), matrix_dtype), ((N,), jnp.dtype(jnp.int32)), ((N,), jnp.dtype(jnp.float32))]
    arguments = [jax.ShapeDtypeStruct(shape, of, sharding=everywhere) for shape, of in shapes]
    run = functools.partial(with_gradients, way)
    try:
        found: dict[str, Any] = {"product_flops": product_flops(run, *arguments)}
    except ValueError:  # a kernel of another library that says nothing of its cost
        found = {"product_flops": None}
    try:
        compiled: Any = jax.jit(run).lower(*arguments).compile()
    except (jax.errors.JaxRuntimeError, SeallmError, ValueError, NotImplementedError) as error:
        return found | {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
    found["temporary_bytes"] = compiled.memory_analysis().temp_size_in_bytes
    texts = {file.name: file for file in sorted(dumps.glob("*final_bundles.txt")) if "schedule" not in file.name}
    core, cycles = CORES[request["topology"].split(":")[0]], estimated_cycles(compiled, V // _CHUNKS.get(name, V))
    if name == "seallm pallas_tpu":
        kind = mesh.devices.flat[0].device_kind
        blocks = pallas_tpu.choose_blocks(kind, N, M, dtype.itemsize, matrix_dtype.itemsize)
        for kernel in _KERNELS:
            text = next((file for file_name, file in texts.items() if kernel in file_name), None)
            if text is None:
                raise SeallmError(f"the compiler dumped no bundles of {kernel}")
            step = read_step(text.read_text(errors="replace"), core)
            found[kernel] = {"step": step, "steps": N // blocks.hidden * -(-V // blocks.matrix)}
        kernels = sum(found[kernel]["step"] * found[kernel]["steps"] for kernel in _KERNELS) // core.cores
        cycles = None if cycles is None else cycles + kernels
    elif name == "tokamax":
        cycles = None  # its kernel is not read
    return found | {"cycles": cycles}
