"""Times implementations of attention on the device present, for `seallm bench attention`."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.cli.tables import print_table
from seallm_jax.core.progress import Progress
from seallm_jax.kernels.attention.api import attention
from seallm_jax.planning.kernel_costs import Shape

Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
_MOST_SCORES = 2**30  # bytes of float32 scores that the reference may take


def measure(options: argparse.Namespace, shape: Shape, segment_ids_RxT: np.ndarray) -> list[dict[str, Any]]:
    """Medians of forward and of forward with backward, for the first rows, all variants in turn."""
    segments = jnp.asarray(segment_ids_RxT[: shape.rows])
    one_document = bool((segments == 1).all())
    keys = jax.random.split(jax.random.key(0), 4)
    heads = (shape.heads, shape.key_value_heads, shape.key_value_heads, shape.heads)
    q, k, v, cotangent = (
        jax.random.normal(key, (shape.rows, shape.positions, n, shape.head_size), jnp.bfloat16)
        for key, n in zip(keys, heads, strict=True)
    )
    programs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    results: dict[str, dict[str, Any]] = {}
    with Progress().task("compiling and timing", total=options.repeats + 1) as advance:
        for name, attend in _variants(shape, one_document).items():
            if options.only and not any(name.startswith(prefix) for prefix in options.only):
                continue
            results[name] = {"name": name, "error": None}
            try:
                forward = jax.jit(attend).lower(q, k, v, segments).compile()
                both = jax.jit(functools.partial(_with_gradients, attend)).lower(q, k, v, segments, cotangent).compile()
                jax.block_until_ready((forward(q, k, v, segments), both(q, k, v, segments, cotangent)))
            except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError, RuntimeError) as error:
                results[name]["error"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                continue
            programs[name] = (forward, both)
        advance(1, "compiled")
        seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in programs}
        for _ in range(options.repeats):
            for name, (alone, with_gradients) in programs.items():
                seconds[name][0].append(_time(alone, q, k, v, segments))
                seconds[name][1].append(_time(with_gradients, q, k, v, segments, cotangent))
            advance(1)
    for name, (forwards, boths) in seconds.items():
        forward_ms, both_ms = (1e3 * statistics.median(times) / shape.rows for times in (forwards, boths))
        results[name] |= {"forward_ms": forward_ms, "sum_ms": both_ms, "backward_ms": both_ms - forward_ms}
    _show(shape, list(results.values()), segment_ids_RxT)
    return list(results.values())


def _variants(shape: Shape, one_document: bool) -> dict[str, Attend]:
    scores = 4 * shape.rows * shape.heads * shape.positions**2
    ours = (
        ["pallas_tpu"] * (jax.default_backend() == "tpu") + ["chunked_xla"] + ["reference"] * (scores <= _MOST_SCORES)
    )
    variants: dict[str, Attend] = {f"seallm {name}": functools.partial(_ours, name) for name in ours}
    libraries = ["xla"] * (scores <= 16 * _MOST_SCORES) + ["cudnn"] * (jax.default_backend() == "gpu")
    for name in libraries:
        variants[f"jax.nn {name}"] = functools.partial(_jax_nn, name, one_document)
    if importlib.util.find_spec("tokamax") is not None:
        variants["tokamax"] = functools.partial(_tokamax, one_document)
    return variants


def _ours(implementation: str, q, k, v, segments):
    ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
    return attention(q, k, v, **ids, implementation=implementation)


def _mask(segments, one_document: bool):
    """bool [B, 1, T, T]; none where the causal rule says it all."""
    return None if one_document else (segments[:, :, None] == segments[:, None])[:, None]


def _jax_nn(implementation, one_document, q, k, v, segments):
    mask = _mask(segments, one_document)
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, implementation=implementation)


def _tokamax(one_document, q, k, v, segments):
    import tokamax

    return tokamax.dot_product_attention(q, k, v, mask=_mask(segments, one_document), is_causal=True)


def _with_gradients(attend: Attend, q, k, v, segments, cotangent):
    out, pullback = jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)
    return out, *pullback(cotangent)


def _time(run: Callable[..., Any], *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start


def _show(shape: Shape, results: list[dict[str, Any]], segment_ids_RxT: np.ndarray) -> None:
    device = jax.devices()[0].device_kind
    for result in results:
        if result["error"]:
            print(f"{result['name']} is left out: {result['error']}")
    found = [result for result in results if not result["error"]]
    ours = [result["sum_ms"] for result in found if result["name"].startswith("seallm")]
    # of the rows that were timed: 7 products forward and backward, 2 operations for each pair that is seen
    pairs = sum(float((n * (n + 1) / 2).sum()) for n in (_lengths(row) for row in segment_ids_RxT[: shape.rows]))
    flops = 7 * 2 * shape.heads * shape.head_size * pairs / shape.rows
    for result in found:
        result["teraflops_per_second"] = flops / result["sum_ms"] / 1e9
    print_table(
        f"Measured on {device}, {jax.default_backend()}: {shape.rows} rows of {shape.positions:,}, {shape.heads} query "
        f"heads, {shape.key_value_heads} key/value heads of {shape.head_size}, bfloat16; ms per row",
        [
            {
                "": result["name"],
                "forward": result["forward_ms"],
                "backward": result["backward_ms"],
                "sum": result["sum_ms"],
                "ours / sum": f"{min(ours) / result['sum_ms']:.2f}" if ours else None,
                "TFLOP/s": result["teraflops_per_second"],
            }
            for result in found
        ],
    )


def _lengths(segment_ids_T: np.ndarray) -> np.ndarray:
    return np.unique(segment_ids_T[segment_ids_T > 0], return_counts=True)[1]
