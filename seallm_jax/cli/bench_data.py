"""`seallm bench data`: packed rows to batches on one core, beside the loaders that others use."""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import statistics
import tempfile
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.child import run_child
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import UsageError
from seallm_jax.core.progress import Progress

LOADERS = {
    "seallm": "batches of all six arrays, in the order of a curriculum",
    "grain": "grain.MapDataset.mix of documents and first-fit packing: tokens, segments and positions",
    "datasets": "datasets.interleave_datasets of the six arrays, made beforehand",
    "rows": "the same rows read from ArrayRecord one by one, nothing else",
    "groups": "the same rows read from ArrayRecord 512 at a time, nothing else",
}


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "data",
        help="speed and memory of the loader on one core, compared with other loaders",
        description="Writes synthetic rows of several sources to disk and reads them as training does, in a process "
        "that is bound to one core, for a number of seconds. Beside it in turn: Grain's mix with packing as it goes, "
        "an interleave of Hugging Face datasets (when installed), and ArrayRecord alone. Speed is tokens a second of "
        "processor time, all threads together.",
        example="seallm bench data --seconds=10 --repeats=3",
    )
    parser.add_argument("--sources", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=8192, metavar="N", help="of all sources (default: %(default)s)")
    parser.add_argument("--sequence_length", type=int, default=2048, metavar="T", help="default: %(default)s")
    parser.add_argument("--batch_rows", type=int, default=64, metavar="B", help="default: %(default)s")
    parser.add_argument("--vocabulary", type=int, default=64_000, metavar="V", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="medians of N (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="that read ahead (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each reading")
    parser.add_argument(
        "--loaders", nargs="+", choices=LOADERS, default=list(LOADERS), metavar="NAME", help=", ".join(LOADERS)
    )
    parser.add_argument("--directory", metavar="DIR", help="where the rows go for the while (default: a temporary one)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.rows < options.sources * options.batch_rows:
        raise UsageError(f"--rows={options.rows} is too few for {options.sources} sources: a batch of rows for each")
    loaders = list(dict.fromkeys(["seallm", *options.loaders]))
    missing = "datasets" in loaders and importlib.util.find_spec("datasets") is None
    if missing:
        loaders.remove("datasets")
        print("datasets is not installed, so its interleave is left out: pip install datasets")
    parent = pathlib.Path(options.directory) if options.directory else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="seallm-bench-", dir=parent) as directory:
        results = _measure(options, loaders, directory)
    rows = [
        {
            "": name,
            "M tokens/s of one core": result["tokens_per_processor_second"] / 1e6,
            "least": min(result["runs"]) / 1e6,
            "elapsed": result["tokens_per_second"] / 1e6,
            "of seallm": f"{result['ratio']:.0%}",
            "memory, MB": result["megabytes"],
            "grown, MB": result["grown_megabytes"],
            "what": LOADERS[name],
        }
        for name, result in results.items()
    ]
    print_table(
        f"{options.rows:,} rows of {options.sequence_length:,} tokens in {options.sources} sources, batches of "
        f"{options.batch_rows}, medians of {options.repeats} x {options.seconds:g} s, files in the page cache"
        + (" only when they were read before" if options.cold else ""),
        rows,
    )
    return _request(options, "") | {"cold": options.cold, "repeats": options.repeats, "loaders": results}


def _measure(options: argparse.Namespace, loaders: list[str], directory: str) -> dict[str, Any]:
    module = "seallm_jax.cli.bench_data_child"
    environment = {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{directory}/cache"}
    request = _request(options, directory)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    with Progress().task("measuring", total=1 + options.repeats * len(loaders)) as advance:
        run_child(module, "make", request | {"loaders": loaders}, environment)
        os.sync()
        advance(1, "rows written")
        for _ in range(options.repeats):
            for name in loaders:
                if options.cold:
                    _drop_from_cache(pathlib.Path(directory))
                found[name].append(run_child(module, name, request, environment))
                advance(1, f"{name}: {found[name][-1]['tokens_per_processor_second'] / 1e6:.1f} M tokens/s")
    ours = _median(found["seallm"], "tokens_per_processor_second")
    return {
        name: {
            "tokens_per_processor_second": _median(runs, "tokens_per_processor_second"),
            "tokens_per_second": _median(runs, "tokens_per_second"),
            "runs": [run["tokens_per_processor_second"] for run in runs],
            "ratio": _median(runs, "tokens_per_processor_second") / ours,
            "megabytes": max(run["megabytes"][-1] for run in runs),
            "grown_megabytes": max(run["megabytes"][-1] - run["megabytes"][0] for run in runs),
            "megabytes_over_time": runs[-1]["megabytes"],
        }
        for name, runs in found.items()
    }


def _request(options: argparse.Namespace, directory: str) -> dict[str, Any]:
    names = ("sources", "rows", "sequence_length", "batch_rows", "vocabulary", "seconds", "threads")
    return {name: getattr(options, name) for name in names} | {"directory": directory}


def _drop_from_cache(directory: pathlib.Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)
