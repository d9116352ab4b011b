"""Timing of operators on the device present, for the benchmarks of kernels: all programs in turn, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.progress import Progress

Run = Callable[..., Any]


def measure_in_turn(
    programs: Mapping[str, tuple[Run, Run]], arguments: tuple[tuple[Any, ...], tuple[Any, ...]], repeats: int
) -> dict[str, dict[str, Any]]:
    """Medians of each program's forward pass alone and of both passes.

    Args:
      programs: by name, the forward pass and both passes, as JAX traces them.
      arguments: of the one and of the other.
      repeats: how often each is timed; the programs take turns.

    Returns:
      By name, `error`, None or the first line of it, and without one `forward_ms`, `backward_ms` (the difference),
      `sum_ms`, and of both passes `temporary_bytes`.
    """
    results: dict[str, dict[str, Any]] = {}
    compiled: dict[str, tuple[Any, Any]] = {}
    with Progress().task("compiling and timing", total=len(programs) + repeats) as advance:
        for name, runs in programs.items():
            results[name] = {"name": name, "error": None}
            try:
                alone, both = (_compile(run, given) for run, given in zip(runs, arguments, strict=True))
            except Exception as error:  # of other libraries, too; a peer that fails is left out, whatever the reason
                results[name]["error"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            else:
                compiled[name] = alone, both
                results[name]["temporary_bytes"] = both.memory_analysis().temp_size_in_bytes
            advance(1, f"compiled {name}")
        seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in compiled}
        for _ in range(repeats):
            for name, pair in compiled.items():
                for times, program, given in zip(seconds[name], pair, arguments, strict=True):
                    times.append(_time(program, *given))
            advance(1, "timed")
    for name, both_times in seconds.items():
        forward_ms, sum_ms = (1e3 * statistics.median(times) for times in both_times)
        results[name] |= {"forward_ms": forward_ms, "sum_ms": sum_ms, "backward_ms": sum_ms - forward_ms}
    return results


def matrix_rate(dtype: Any, repeats: int) -> float:
    """Operations per second of a large matrix product here: what the others can be held against."""
    size = 8192 if jax.default_backend() != "cpu" else 1024
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: jnp.dot(a, a)).lower(a).compile()
    jax.block_until_ready(product(a))
    return 2 * size**3 / statistics.median(_time(product, a) for _ in range(max(repeats, 3)))


def print_left_out(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Says which programs failed, and returns the others."""
    for result in results:
        if result["error"]:
            print(f"{result['name']} is left out: {result['error']}")
    return [result for result in results if not result["error"]]


def chosen(names: Mapping[str, Any], prefixes: list[str] | None) -> dict[str, Any]:
    """Those whose names begin with one of the prefixes; all where none are given."""
    return {name: x for name, x in names.items() if not prefixes or any(name.startswith(p) for p in prefixes)}


def _compile(run: Run, arguments: tuple[Any, ...]) -> Any:
    """Compiled, and run once."""
    program = jax.jit(run).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    return program


def _time(run: Run, *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start
