"""The process that compiles kernels for a TPU: `python -m seallm_jax.planning.kernel_child ANSWER < REQUEST`.

JSON in and out. Its environment, and the folder for the compiler's dumps, are set by `kernel_costs.read_costs` before
libtpu is loaded. All variants of attention take queries, keys and values as [B, T, heads, D]. Everything runs forward
and backward.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import write_json
from seallm_jax.core.schema import MeshConfig
from seallm_jax.kernels.attention.block_sizes import BlockSizes, choose_block_sizes
from seallm_jax.kernels.attention.pallas_tpu import pallas_tpu_attention
from seallm_jax.kernels.attention.schedule import first_visible, list_steps
from seallm_jax.planning.bundles import CORES, read_kernel
from seallm_jax.planning.cross_entropy_child import cross_entropy_compilers
from seallm_jax.planning.estimated_cycles import estimated_cycles

KERNELS = {  # by the names of the dumped files; the first that fits
    "backward_queries": "packed_attention_backward_queries",
    "backward": "packed_attention_backward|splash_.*dkv",
    "forward": "packed_attention_forward|splash_.*fwd",
}

_PACKAGES = {
    "splash": "jax.experimental.pallas.ops.tpu.splash_attention",
    "tokamax": "tokamax._src.ops.experimental.tpu.splash_attention",
}


def main() -> None:
    """Reads the request; writes {"costs": {name: costs of a variant, or {"error": message}}}."""
    answer, request = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
    compilers = (_attention_compilers if request["operator"] == "attention" else cross_entropy_compilers)(request)
    write_json(answer, {"costs": {name: _costs(request, run) for name, run in compilers.items()}})


def _attention_compilers(request: dict[str, Any]) -> dict[str, Callable[[pathlib.Path], dict[str, Any]]]:
    return {name: functools.partial(_attention, request, variant) for name, variant in request["variants"].items()}


def _costs(request: dict[str, Any], run: Callable[[pathlib.Path], dict[str, Any]]) -> dict[str, Any]:
    dumps = pathlib.Path(request["dumps"])
    try:
        return run(dumps)
    except ImportError as error:
        return {"error": f"{error.name} is not installed"}
    except (jax.errors.JaxRuntimeError, SeallmError, ValueError, NotImplementedError) as error:
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
    finally:
        for file in dumps.iterdir():
            file.unlink()


def _attention(request: dict[str, Any], variant: dict[str, Any], dumps: pathlib.Path) -> dict[str, Any]:
    T, H, K, D, rows = (request[key] for key in ("positions", "heads", "key_value_heads", "head_size", "rows"))
    devices: Any = topologies.get_topology_desc(topology_name=request["topology"], platform="tpu").devices
    mesh = build_mesh(MeshConfig(), devices)
    sizes = None
    if variant["kind"] == "ours":
        chosen = choose_block_sizes(devices[0].device_kind, T, D, document_length=request["document_length"])
        sizes = dataclasses.replace(chosen, **variant.get("sizes", {}))
        kind = {"soft_cap": variant.get("soft_cap", 0.0), "alibi": variant.get("alibi", False)}
        run = functools.partial(_ours, sizes=sizes, mesh=mesh, **kind)
    else:
        run = jax.shard_map(
            functools.partial(_peer(variant, T, H), scale=D**-0.5),
            mesh=mesh,
            in_specs=PartitionSpec(mesh.axis_names),
            out_specs=PartitionSpec(mesh.axis_names),
            check_vma=False,
        )

    def gradients(q, k, v, cotangent, segments):
        out, pullback = jax.vjp(lambda q, k, v: run(q, k, v, segments), q, k, v)
        return out, *pullback(cotangent)

    B = rows * mesh.size
    by_rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    shapes = [((B, T, n, D), jnp.bfloat16) for n in (H, K, K, H)] + [((B, T), jnp.int32)]
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=by_rows) for shape, dtype in shapes]
    compiled: Any = jax.jit(gradients).lower(*arguments).compile()
    core = CORES[request["topology"].split(":")[0]]
    kernels = {}
    for file in sorted(dumps.glob("*final_bundles.txt")):
        name = next((name for name, pattern in KERNELS.items() if re.search(pattern, file.name)), None)
        if name is not None and "schedule-analysis" not in file.name:
            kernels[name] = dataclasses.asdict(read_kernel(file.read_text(errors="replace"), core))
    if not {"forward", "backward"} <= set(kernels):
        raise SeallmError(f"the compiler dumped the bundles of {sorted(kernels)} only")
    result = {
        "kernels": kernels,
        "outside_cycles": estimated_cycles(compiled),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }
    if sizes is not None:
        result |= {"sizes": dataclasses.asdict(sizes), "listing_cycles": _listing_cycles(T, rows, sizes, mesh)}
    return result


def _ours(q, k, v, segments, *, sizes: BlockSizes, mesh: jax.sharding.Mesh, soft_cap: float, alibi: bool) -> jax.Array:
    scale = q.shape[-1] ** -0.5
    slopes_H = jnp.ones(q.shape[2]) if alibi else None
    switches: dict[str, Any] = {"window": None, "anchor": False, "soft_cap": soft_cap, "alibi_slopes_H": slopes_H}
    return pallas_tpu_attention(q, k, v, segments, scale=scale, sizes=sizes, mesh=mesh, **switches)


def _peer(variant: dict[str, Any], T: int, H: int):
    q_block, kv_block, compute = variant["forward"]
    q_block_dkv, kv_block_dkv, compute_dkv = variant["backward"]
    blocks = {
        "block_q": q_block,
        "block_kv": kv_block,
        "block_kv_compute": compute,
        "block_q_dkv": q_block_dkv,
        "block_kv_dkv": kv_block_dkv,
        "block_kv_dkv_compute": compute_dkv,
        "use_fused_bwd_kernel": True,
    }
    package = _PACKAGES[variant["kind"]]
    splash: Any = importlib.import_module(f"{package}.splash_attention_kernel")
    masks: Any = importlib.import_module(f"{package}.splash_attention_mask")
    if variant["kind"] == "splash":
        mask, sizes = masks.MultiHeadMask([masks.CausalMask((T, T))] * H), splash.BlockSizes(**blocks)
        kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    else:
        config = splash.SplashConfig(**blocks, **variant.get("options", {}))
        kernel = splash.make_splash_mha(masks.CausalMask((T, T)), config=config, q_seq_shards=1)

    def attend(q, k, v, segments, scale):
        q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
        out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=splash.SegmentIds(ids, ids)))(q, k, v, segments)
        return out.swapaxes(1, 2)

    return attend


def _listing_cycles(T: int, rows: int, sizes: BlockSizes, mesh: jax.sharding.Mesh) -> int | None:
    """XLA's estimate for building the lists of steps of the forward and the backward kernel."""

    def lists(segments):
        start = first_visible(segments)
        passes = ((sizes.forward, False), (sizes.backward, True))
        firsts = [jnp.arange(0, T, block, dtype=jnp.int32) for block, _ in passes]
        return [
            list_steps(start, first, first, block, key_major=key_major)
            for first, (block, key_major) in zip(firsts, passes, strict=True)
        ]

    everywhere = NamedSharding(mesh, PartitionSpec())
    compiled: Any = jax.jit(lists).lower(jax.ShapeDtypeStruct((rows, T), jnp.int32, sharding=everywhere)).compile()
    return estimated_cycles(compiled)


if __name__ == "__main__":
    main()
