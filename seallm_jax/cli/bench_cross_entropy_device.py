"""Times ways to the log-probabilities of targets on the device present, for `seallm bench cross-entropy`."""

from __future__ import annotations

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.cli.bench_device import chosen, matrix_rate, measure_in_turn, print_left_out
from seallm_jax.cli.tables import print_table
from seallm_jax.planning.linear_cross_entropy import PLAIN, ways, with_gradients
from seallm_jax.planning.product_flops import product_flops


def measure(options: argparse.Namespace, N: int, M: int, V: int) -> list[dict[str, Any]]:
    """Medians of forward and of forward with backward, all variants in turn."""
    keys = jax.random.split(jax.random.key(0), 4)
    hidden_NxM = jax.random.normal(keys[0], (N, M), options.dtype)
    output_VxM = 0.02 * jax.random.normal(keys[1], (V, M), options.dtype)
    targets_N = jax.random.randint(keys[2], (N,), 0, V)
    arguments = hidden_NxM, output_VxM, targets_N
    cotangent_N = jax.random.normal(keys[3], (N,))
    programs = {
        name: (way, functools.partial(with_gradients, way))
        for name, way in chosen(ways(jax.default_backend()), options.only).items()
    }
    results = list(measure_in_turn(programs, (arguments, (*arguments, cotangent_N)), options.repeats).values())
    found = print_left_out(results)
    rate = matrix_rate(jnp.dtype(options.dtype), options.repeats)
    plain_ms = next((result["sum_ms"] for result in found if result["name"] == PLAIN), None)
    needed = 3 * 2 * N * M * V
    for result in found:
        result["temporary_of_logits"] = result["temporary_bytes"] / (4 * N * V)
        result["time_of_full_logits"] = result["sum_ms"] / plain_ms if plain_ms else None
        result["teraflops_per_second"] = needed / result["sum_ms"] / 1e9
        result["share_of_matrix_rate"] = 1e12 * result["teraflops_per_second"] / rate
        try:
            result["product_flops"] = product_flops(programs[result["name"]][1], *arguments, cotangent_N)
        except ValueError:  # a kernel of another library that says nothing of its cost
            result["product_flops"] = None
    print_table(
        f"Measured on {jax.devices()[0].device_kind}, {jax.default_backend()}: ms. A large matrix product reaches "
        f"{rate / 1e12:,.3g} TFLOP/s",
        [
            {
                "": result["name"],
                "forward": result["forward_ms"],
                "backward": result["backward_ms"],
                "sum": result["sum_ms"],
                "sum / full logits'": result["time_of_full_logits"],
                "products / 3": None if result["product_flops"] is None else result["product_flops"] / needed,
                "TFLOP/s of 3": result["teraflops_per_second"],
                "of the product's": f"{result['share_of_matrix_rate']:.0%}",
                "temporary MiB": result["temporary_bytes"] / 2**20,
                "of float32 logits": f"{result['temporary_of_logits']:.1%}",
            }
            for result in found
        ],
    )
    return results
