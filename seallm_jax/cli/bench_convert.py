"""`seallm bench convert`: import and export of Hugging Face folders against safetensors alone."""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import tempfile
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.child import run_child
from seallm_jax.cli.tables import print_table
from seallm_jax.core.progress import Progress

# hidden_size, intermediate_size, num_layers, num_heads, num_key_value_heads, head_size, vocabulary_size, tie_embeddings
SIZES = {
    "tiny": (64, 128, 2, 4, 2, 16, 512, True),
    "0.5b": (1024, 4096, 20, 16, 8, 64, 65536, False),
    "3b": (3072, 8192, 28, 24, 8, 128, 128256, True),  # the shape of Llama 3.2 3B
}
FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_key_value_heads",
    "head_size",
    "vocabulary_size",
    "tie_embeddings",
)
PAIRS = {"import": ("read", "import"), "export": ("write", "export")}  # safetensors alone, then ours


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "convert",
        help="import and export of a synthetic checkpoint, compared with safetensors alone",
        description="Writes a synthetic bfloat16 checkpoint, imports it onto emulated devices of this CPU and exports "
        "it again. Throughput is compared with reading and writing the same files with safetensors alone, alternating; "
        "memory is what the process holds beyond the parameters.",
        example="seallm bench convert --size=3b --directory=/tmp/bench",
    )
    parser.add_argument("--size", choices=SIZES, default="0.5b", help="of the checkpoint (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=8, metavar="N", help="emulated devices (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="medians of N (default: %(default)s)")
    parser.add_argument(
        "--directory", metavar="DIR", help="where the files go for the while (default: a temporary one)"
    )
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each reading")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    parent = pathlib.Path(options.directory) if options.directory else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="seallm-bench-", dir=parent) as name:
        directory = pathlib.Path(name)
        results = _measure(options, directory)
    rows = [
        {
            "": name,
            "GB": result["gigabytes"],
            "safetensors GB/s": result["floor"],
            "seallm GB/s": result["ours"],
            "ratio": f"{result['ratio']:.0%}",
            "processor s/GB": f"{result['floor_processor']:.2f}, {result['ours_processor']:.2f}",
            "memory beyond parameters, GB": result["extra_gigabytes"],
        }
        for name, result in results.items()
    ]
    state = "cold (files dropped from the page cache)" if options.cold else "warm (files in the page cache)"
    print_table(
        f"{options.size} bfloat16 checkpoint, {options.devices} devices, medians of {options.repeats}, reading {state}",
        rows,
    )
    return {"size": options.size, "devices": options.devices, "cold": options.cold, **results}


def _measure(options: argparse.Namespace, directory: pathlib.Path) -> dict[str, Any]:
    shape = dict(zip(FIELDS, SIZES[options.size], strict=True))
    request = {"shape": shape, "source": str(directory / "source"), "output": str(directory / "output")}
    tasks = [task for pair in PAIRS.values() for task in pair]
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    with Progress().task("measuring", total=1 + options.repeats * len(tasks)) as advance:
        made = _child("make", request, options.devices)
        advance(1, "checkpoint written")
        for _ in range(options.repeats):
            for task in tasks:
                _settle(directory / "source", cold=options.cold)
                found[task].append(_child(task, request, options.devices))
                shutil.rmtree(directory / "output", ignore_errors=True)
                advance(1, f"{task}: {made['bytes'] / 1e9 / found[task][-1]['seconds']:.2f} GB/s")
    results, gigabytes = {}, made["bytes"] / 1e9
    for name, (floor, ours) in PAIRS.items():
        speed = {task: gigabytes / _median(found[task], "seconds") for task in (floor, ours)}
        results[name] = {
            "gigabytes": gigabytes,
            "floor": speed[floor],
            "ours": speed[ours],
            "ratio": speed[ours] / speed[floor],
            "floor_processor": _median(found[floor], "processor_seconds") / gigabytes,
            "ours_processor": _median(found[ours], "processor_seconds") / gigabytes,
            "extra_gigabytes": max(run["extra_bytes"] for run in found[ours]) / 1e9,
            "seconds": {task: [run["seconds"] for run in found[task]] for task in (floor, ours)},
        }
    return results


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _child(task: str, request: dict[str, Any], devices: int) -> dict[str, Any]:
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return run_child("seallm_jax.cli.bench_convert_child", task, request, environment)


def _settle(source: pathlib.Path, *, cold: bool) -> None:
    """What earlier runs wrote is on the disk; the source is in the page cache, or not at all."""
    os.sync()
    for file in sorted(source.glob("*.safetensors")):
        with open(file, "rb", buffering=0) as stream:
            if cold:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while stream.read(1 << 24):
                    pass
