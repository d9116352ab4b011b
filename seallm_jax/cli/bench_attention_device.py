"""Times implementations of attention on the device present, for `seallm bench attention`."""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.cli.bench_device import chosen, matrix_rate, measure_in_turn, print_left_out
from seallm_jax.cli.tables import print_table
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
    programs = {
        name: (attend, functools.partial(_with_gradients, attend))
        for name, attend in chosen(_variants(shape, one_document), options.only).items()
    }
    found = measure_in_turn(programs, ((q, k, v, segments), (q, k, v, segments, cotangent)), options.repeats)
    results = list(found.values())
    for result in results:
        result |= {
            part: result[part] / shape.rows for part in ("forward_ms", "backward_ms", "sum_ms") if part in result
        }
    _show(shape, results, segment_ids_RxT, matrix_rate(jnp.bfloat16, options.repeats))
    return results


def _variants(shape: Shape, one_document: bool) -> dict[str, Attend]:
    scores, platform = 4 * shape.rows * shape.heads * shape.positions**2, jax.default_backend()
    ours = ["auto"] + ["pallas_tpu"] * (platform == "tpu") + ["cudnn"] * (platform == "gpu") + ["chunked_xla"]
    ours += ["reference"] * (scores <= _MOST_SCORES)
    variants: dict[str, Attend] = {f"seallm {name}": functools.partial(_ours, name) for name in ours}
    libraries = ["xla"] * (scores <= 16 * _MOST_SCORES) + ["cudnn"] * (platform == "gpu")
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


def _show(shape: Shape, results: list[dict[str, Any]], segment_ids_RxT: np.ndarray, rate: float) -> None:
    device = jax.devices()[0].device_kind
    found = print_left_out(results)
    ours = [result["sum_ms"] for result in found if result["name"].startswith("seallm")]
    # of the rows that were timed: 7 products forward and backward, 2 operations for each pair that is seen
    pairs = sum(float((n * (n + 1) / 2).sum()) for n in (_lengths(row) for row in segment_ids_RxT[: shape.rows]))
    flops = 7 * 2 * shape.heads * shape.head_size * pairs / shape.rows
    for result in found:
        result["teraflops_per_second"] = flops / result["sum_ms"] / 1e9
        result["share_of_matrix_rate"] = 1e12 * result["teraflops_per_second"] / rate
    print_table(
        f"Measured on {device}, {jax.default_backend()}: {shape.rows} rows of {shape.positions:,}, {shape.heads} query "
        f"heads, {shape.key_value_heads} key/value heads of {shape.head_size}, bfloat16; ms per row. A large matrix "
        f"product reaches {rate / 1e12:,.3g} TFLOP/s",
        [
            {
                "": result["name"],
                "forward": result["forward_ms"],
                "backward": result["backward_ms"],
                "sum": result["sum_ms"],
                "ours / sum": f"{min(ours) / result['sum_ms']:.2f}" if ours else None,
                "TFLOP/s": result["teraflops_per_second"],
                "of the product's": f"{result['share_of_matrix_rate']:.0%}",
                "temporary MiB": result["temporary_bytes"] / 2**20,
            }
            for result in found
        ],
    )


def _lengths(segment_ids_T: np.ndarray) -> np.ndarray:
    return np.unique(segment_ids_T[segment_ids_T > 0], return_counts=True)[1]
