"""Compiles small programs for TPUs: `python compile_programs.py FOLDER`, one text for each. Needs libtpu, no TPU."""

from __future__ import annotations

import functools
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.kernels.attention.api import attention
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.planning.program_text import compile_with_text

BF16, F32 = jnp.bfloat16, jnp.float32
Argument = tuple[tuple[int, ...], Any, PartitionSpec]
Program = tuple[str, Any, Mesh, list[Argument]]


def programs() -> Iterator[Program]:
    """Name, function, mesh, and shapes with shardings."""
    yield from on_one_chip()
    yield from collectives()
    yield from several()


def on_one_chip() -> Iterator[Program]:
    mesh, whole = mesh_of("v5e:1x1", x=1), PartitionSpec()

    def scan(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    def nested(x, weights):
        return jax.lax.fori_loop(0, 3, lambda _, x: scan(x, weights), x)

    def precise(x, w):
        return jnp.dot(x, w, precision="highest")

    def heads(q, k):
        return jnp.einsum("bthd,bshd->bhts", q, k)

    def offload(state, gradient):
        on_device = jax.device_put(state, NamedSharding(mesh, whole, memory_kind="device"))
        return jax.device_put(0.9 * on_device + gradient, NamedSharding(mesh, whole, memory_kind="pinned_host"))

    def kernel(x, w):
        def double(x_ref, out_ref):
            out_ref[...] = 2 * x_ref[...]

        spec = pl.BlockSpec((256, 1024), lambda i: (i, 0))
        cost = pl.CostEstimate(flops=12345, bytes_accessed=0, transcendentals=0)
        call = pl.pallas_call(
            double, grid=(8,), in_specs=[spec], out_specs=spec, out_shape=x, cost_estimate=cost, name="doubled"
        )
        return jax.lax.scan(lambda x, w: (call(x @ w), None), x, w)[0]

    square = ((2048, 1024), BF16, whole), ((5, 1024, 1024), BF16, whole)
    large = ((8192, 4096), F32, whole)
    yield "matmul", jnp.matmul, mesh, [((4096, 2048), BF16, whole), ((2048, 8192), BF16, whole)]
    yield "precise", precise, mesh, [((1024, 1024), F32, whole), ((1024, 1024), F32, whole)]
    yield "heads", heads, mesh, [((2, 512, 8, 128), BF16, whole)] * 2
    yield "scan", scan, mesh, list(square)
    yield "nested", nested, mesh, list(square)
    yield "add", jnp.add, mesh, [large, large]
    yield "slice", lambda x, i: 2 * x[i], mesh, [((64, 2048, 1024), F32, whole), ((), jnp.int32, whole)]
    yield "update", lambda x, y, i: x.at[i].set(2 * y), mesh, [large, ((4096,), F32, whole), ((), jnp.int32, whole)]
    yield "offload", offload, mesh, [large, large]
    yield "kernel", kernel, mesh, list(square)
    one = build_mesh(MeshConfig(fsdp=1), mesh.devices.flat)
    yield (
        "ours",
        functools.partial(ours, mesh=one),
        one,
        [
            ((2, 512, 4, 128), BF16, whole),
            ((2, 512, 2, 128), BF16, whole),
            ((2, 512, 2, 128), BF16, whole),
            ((1024, 512), F32, whole),
            ((2, 512), jnp.int32, whole),
        ],
    )


def ours(q, k, v, output, segments, *, mesh: Mesh):
    """Attention and cross-entropy of this package, forward and backward."""

    def loss(q, k, v, output):
        segment_ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
        out = attention(q, k, v, mesh=mesh, implementation="pallas_tpu", **segment_ids).reshape(*segments.shape, -1)
        options = {"logical_size": 1000, "mesh": mesh, "implementation": "pallas_tpu"}
        return linear_log_probability(out, output, segments, **options).log_probability.sum()

    return jax.grad(loss, argnums=(0, 1, 2, 3))(q, k, v, output)


def collectives() -> Iterator[Program]:
    mesh, whole = mesh_of("v5e:4x4", x=4, y=4), PartitionSpec()
    for axes in ("x", "y", "xy"):
        names, split = tuple(axes), PartitionSpec(tuple(axes))
        rows = 4 ** len(axes)
        for name, function, shape, specs in (
            (
                "all_gather",
                lambda a, n=names: jax.lax.all_gather(a, n, tiled=True),
                (rows * 2048, 1024),
                (split, whole),
            ),
            ("reduce_scatter", lambda a, n=names: jax.lax.psum_scatter(a, n, tiled=True), (4096, 1024), (whole, split)),
            ("all_reduce", lambda a, n=names: jax.lax.psum(a, n), (4096, 1024), (whole, whole)),
        ):
            mapped = jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
            yield f"{name} {axes}", mapped, mesh, [(shape, F32, specs[0])]
    split = PartitionSpec("x")

    def along_x(function):
        return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)

    turn = [(i, (i + 1) % 4) for i in range(4)]
    yield "permute", along_x(lambda a: jax.lax.ppermute(a, "x", turn)), mesh, [((4 * 4096, 1024), BF16, split)]
    exchange = along_x(lambda a: jax.lax.all_to_all(a, "x", 0, 0, tiled=True))
    yield "all_to_all", exchange, mesh, [((4 * 4096, 1024), BF16, split)]


def several() -> Iterator[Program]:
    mesh, split = mesh_of("v5e:4x4", x=16), PartitionSpec("x")

    def windowed(x, w):
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, split))

    yield "windowed", windowed, mesh, [((16 * 2048, 4096), BF16, split), ((4096, 4096), BF16, split)]
    pod, rows = mesh_of("v5e:16x16", x=256), PartitionSpec("x")

    def gathered(x, up, down):
        return jax.lax.with_sharding_constraint((x @ up) @ down, NamedSharding(pod, rows))

    columns = PartitionSpec(None, "x")
    shapes = [((256 * 8192, 4096), BF16, rows), ((4096, 8192), BF16, columns), ((8192, 4096), BF16, columns)]
    yield "gathered", gathered, pod, shapes
    slices = mesh_of("v5e:4x4", slices=2, z=2, x=16)
    total = jax.shard_map(
        lambda a: jax.lax.psum(a, ("z", "x")),
        mesh=slices,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    yield "slices", total, slices, [((4096, 1024), F32, PartitionSpec())]


def mesh_of(topology: str, slices: int = 1, **axes: int) -> Mesh:
    options = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu", **options).devices
    shape = tuple(axes.values())
    if slices > 1:
        return Mesh(np.array(devices).reshape(shape), tuple(axes))
    return Mesh(mesh_utils.create_device_mesh(shape, devices), tuple(axes))


def main(folder: pathlib.Path) -> None:
    for name, function, mesh, arguments in programs():
        kinds = {"offload": "pinned_host"}
        structs = [
            jax.ShapeDtypeStruct(
                shape, dtype, sharding=NamedSharding(mesh, spec, memory_kind=kinds.get(name) if index == 0 else None)
            )
            for index, (shape, dtype, spec) in enumerate(arguments)
        ]
        options = {"out_shardings": structs[0].sharding} if name == "offload" else {}
        donated = (0,) if name == "update" else ()
        lowered = jax.jit(function, donate_argnums=donated, **options).lower(*structs)
        with tempfile.TemporaryDirectory() as dumps:
            _, text = compile_with_text(lowered, pathlib.Path(dumps))
            assert text is not None, f"the compiler wrote down no program for {name}"
            shutil.move(text, folder / name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
