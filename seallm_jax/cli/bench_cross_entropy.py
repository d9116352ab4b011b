"""`seallm bench cross-entropy`: the loss from hidden states beside full logits, timed here, or predicted for a TPU."""

from __future__ import annotations

import argparse
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import UsageError

# tokens, hidden size, vocabulary: of a large model, and what a few processor cores do in a second
_LARGE, _SMALL = (8192, 4096, 262_144), (512, 256, 65_536)


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "cross-entropy",
        help="log-probabilities of targets without full logits, compared with full logits and other libraries",
        description="Times our implementations and their peers on the device present, forward and backward, in turn, "
        "and gives medians and temporary memory. With --topology, the TPU compiler builds the programs instead, and "
        "the cycles of our kernels' instruction bundles and the compiler's own estimates of the rest give static "
        "predictions; no TPU is needed. Peers that are not installed are left out.",
        example="seallm bench cross-entropy --topology=v5e",
    )
    parser.add_argument("--topology", choices=("v5e", "v5p", "v6e"), help="predict for this TPU instead of timing here")
    shape = parser.add_argument_group("shape", f"default: {_LARGE} tokens, hidden size, vocabulary; on a CPU {_SMALL}")
    shape.add_argument("--tokens", type=int, metavar="N", help="hidden states")
    shape.add_argument("--hidden-size", type=int, metavar="D", help="of each")
    shape.add_argument("--vocabulary", type=int, metavar="V", help="rows of the output matrix")
    shape.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="(default: %(default)s)")
    running = parser.add_argument_group("running")
    running.add_argument("--repeats", type=int, default=5, metavar="N", help="medians of N (default: %(default)s)")
    running.add_argument("--only", nargs="+", metavar="NAME", help="variants whose names begin so")
    running.add_argument(
        "--timeout", type=float, default=3600, metavar="S", help="for the compiler (default: %(default)s)"
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.topology:
        given = _LARGE
    else:
        import jax

        given = _SMALL if jax.default_backend() == "cpu" else _LARGE
    asked = options.tokens, options.hidden_size, options.vocabulary
    N, M, V = (default if value is None else value for value, default in zip(asked, given, strict=True))
    if min(N, M, V, options.repeats) < 1:
        raise UsageError("--tokens, --hidden-size, --vocabulary and --repeats are at least 1")
    problem = {"tokens": N, "hidden_size": M, "vocabulary": V, "dtype": options.dtype}
    print(f"{N:,} tokens, hidden size {M:,}, vocabulary {V:,}, {options.dtype}: {_gibibytes(4 * N * V)} of logits")
    if options.topology:
        results = _predict(options, N, M, V)
    else:
        from seallm_jax.cli.bench_cross_entropy_device import measure

        results = measure(options, N, M, V)
    return {"topology": options.topology, "static_prediction": bool(options.topology), **problem, "results": results}


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _predict(options: argparse.Namespace, N: int, M: int, V: int) -> list[dict[str, Any]]:
    from seallm_jax.cli.bench_device import chosen, print_left_out
    from seallm_jax.planning.bundles import CORES
    from seallm_jax.planning.kernel_costs import read_cross_entropy_costs
    from seallm_jax.planning.linear_cross_entropy import PLAIN

    costs = read_cross_entropy_costs(options.topology, N, M, V, options.dtype, timeout=options.timeout)
    core, plain = CORES[options.topology], costs[PLAIN]["product_flops"]
    results: list[dict[str, Any]] = []
    for name, cost in chosen(costs, options.only).items():
        result: dict[str, Any] = {"name": name, "error": cost.get("error"), "product_flops": cost.get("product_flops")}
        result["flops_of_full_logits"] = None if result["product_flops"] is None else result["product_flops"] / plain
        if not result["error"]:
            cycles = cost["cycles"]
            result |= {
                "sum_ms": None if cycles is None else 1e3 * cycles / core.clock_hz,
                "matrix_unit_share": None if not cycles else plain / core.flops_per_cycle / cycles,
                "temporary_bytes": cost["temporary_bytes"],
                "temporary_of_logits": cost["temporary_bytes"] / (4 * N * V),
                **{key: value for key, value in cost.items() if key.startswith("linear_")},
            }
        results.append(result)
    print_table(
        f"STATIC PREDICTION for {options.topology}, no TPU was used: forward and backward; memory as its compiler "
        "states it",
        [
            {
                "": result["name"],
                "ms": result["sum_ms"],
                "MXU, of 3 products": _percent(result["matrix_unit_share"]),
                "products of full logits'": result["flops_of_full_logits"],
                "temporary MiB": result["temporary_bytes"] / 2**20,
                "of float32 logits": _percent(result["temporary_of_logits"]),
            }
            for result in print_left_out(results)
        ],
    )
    return results


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
