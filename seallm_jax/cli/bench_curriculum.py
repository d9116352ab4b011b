"""`seallm bench curriculum`: build, reopen and seek a schedule of many rows and sources."""

from __future__ import annotations

import argparse
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import UsageError
from seallm_jax.core.progress import Progress

SEQUENCE_LENGTH = 2048
BATCH_ROWS = 1024
SEEKS = 100


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "curriculum",
        help="build a long schedule, reopen it, seek in it",
        description="Compiles a curriculum of three stages (capped temperature mixture; explicit mixture behind a "
        "cosine transition that drops half of the sources; proportional) over sources whose sizes span four orders of "
        "magnitude. Then finds the sources and rows of a batch at random places, each time in a schedule just opened "
        "from its files. Reports the largest |served - quota| that was met, in rows.",
        example="seallm bench curriculum --rows=100000000 --sources=500",
    )
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="of the schedule (default: 10^7)")
    parser.add_argument("--sources", type=int, default=500, metavar="K", help="at least 10 (default: %(default)s)")
    parser.add_argument(
        "--directory", metavar="DIR", help="where the schedule goes for the while (default: a temporary one)"
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.sources < 10 or options.rows < 100 * BATCH_ROWS:
        raise UsageError(f"--sources={options.sources} --rows={options.rows}: at least 10 and {100 * BATCH_ROWS}")
    with tempfile.TemporaryDirectory(prefix="seallm-bench-", dir=options.directory) as name:
        result = _measure(options.rows, options.sources, pathlib.Path(name))
    print_table(
        f"Curriculum of {options.rows:,} rows and {options.sources} sources",
        [
            {
                "build s": result["build_seconds"],
                "processor s": result["build_processor_seconds"],
                "peak memory MB": result["peak_memory_mb"],
                "reopen ms": result["reopen_ms"],
                "seek ms": result["seek_ms"],
                "slowest seek ms": result["slowest_seek_ms"],
                "next batch ms": result["batch_ms"],
                "largest error, rows": f"{result['largest_error']:.6f}",
            }
        ],
    )
    return {"rows": options.rows, "sources": options.sources} | result


def _measure(rows: int, count: int, directory: pathlib.Path) -> dict[str, Any]:
    import numpy as np

    from seallm_jax.core.schema import StageConfig
    from seallm_jax.data.curriculum import Curriculum
    from seallm_jax.data.source import Source

    rng = np.random.default_rng(0)
    sizes = np.maximum(rows * 10.0 ** rng.uniform(-6, -2, count), 1).astype(int)
    sources = [Source(f"text/l{index:04d}", int(size)) for index, size in enumerate(sizes)]
    tokens = rows * SEQUENCE_LENGTH
    stages = (
        StageConfig(name="capped", tokens=tokens // 2, mixture="temperature", alpha=0.3, maximum_epochs=2),
        StageConfig(
            name="moving",
            tokens=tokens * 4 // 10,
            mixture="explicit",
            weights={"text/*[02468]": 1.0},
            alpha=0.5,
            transition="cosine",
            transition_tokens=tokens // 10,
        ),
        StageConfig(name="proportional", tokens=tokens // 10, mixture="proportional"),
    )
    with Progress().task("building the schedule", total=1) as advance:
        wall, processor = time.perf_counter(), time.process_time()
        built = Curriculum.compile(
            stages, sources, sequence_length=SEQUENCE_LENGTH, batch_rows=BATCH_ROWS, seed=0, directory=directory
        )
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        advance(1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    reopened, sought, error = [], [], 0.0
    for start in rng.integers(0, built.total_rows - BATCH_ROWS, SEEKS).tolist():
        began = time.perf_counter()
        curriculum = Curriculum.load(directory, built.digest)
        reopened.append(time.perf_counter() - began)
        began = time.perf_counter()
        curriculum.assign(start, BATCH_ROWS)
        sought.append(time.perf_counter() - began)
        quota = curriculum.schedule.quotas(start) / curriculum.schedule.scale
        error = max(error, float(np.abs(curriculum.served(start) - quota).max()))
    batches = min(SEEKS, built.total_rows // BATCH_ROWS)
    began = time.perf_counter()
    for batch in range(batches):
        built.assign(batch * BATCH_ROWS, BATCH_ROWS)
    return {
        "build_seconds": wall,
        "build_processor_seconds": processor,
        "peak_memory_mb": peak,
        "reopen_ms": 1e3 * statistics.median(reopened),
        "seek_ms": 1e3 * statistics.median(sought),
        "slowest_seek_ms": 1e3 * max(sought),
        "batch_ms": 1e3 * (time.perf_counter() - began) / batches,
        "largest_error": error,
    }
