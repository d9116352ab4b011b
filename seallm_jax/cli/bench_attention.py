"""`seallm bench attention`: our attention beside its peers, timed here, or predicted for a TPU that is not."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import UsageError
from seallm_jax.core.paths import read_jsonl

if TYPE_CHECKING:
    import numpy as np

    from seallm_jax.planning.kernel_costs import Shape

# peers: queries, keys and keys of a tile, forward and backward; the best of them for the layout is what counts
_DIAGONAL = {"qk_diag_skip": True, "sv_diag_skip": True, "qk_diag_grid": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "seallm": {"kind": "ours"},
    "splash 1024": {"kind": "splash", "forward": (1024, 1024, 512), "backward": (1024, 1024, 1024)},
    "splash 2048": {"kind": "splash", "forward": (2048, 2048, 512), "backward": (2048, 2048, 2048)},
    "tokamax 1024 diagonal": {
        "kind": "tokamax",
        "forward": (1024, 1024, 1024),
        "backward": (1024, 1024, 1024),
        "options": _DIAGONAL,
    },
    "tokamax 1024": {"kind": "tokamax", "forward": (1024, 1024, 512), "backward": (1024, 1024, 512)},
    "tokamax 512": {
        "kind": "tokamax",
        "forward": (512, 512, 512),
        "backward": (512, 512, 512),
        "options": _DIAGONAL,
    },
}


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "attention",
        help="attention of packed rows, compared with the best of other libraries",
        description="Times our implementations and their peers on the device present, forward and backward, in turn, "
        "and gives medians. With --topology, the TPU compiler builds the kernels instead, and the cycles of their "
        "instruction bundles, times the steps that the documents make, give static predictions; no TPU is needed. "
        "Peers that are not installed are left out.",
        example="seallm bench attention --topology=v5e --sequence-length=8192 --documents=corpus/",
    )
    parser.add_argument("--topology", choices=("v5e", "v6e"), help="predict for this TPU instead of timing here")
    shape = parser.add_argument_group("shape")
    shape.add_argument("--sequence-length", type=int, default=4096, metavar="T", help="(default: %(default)s)")
    shape.add_argument("--rows", type=int, default=4, metavar="B", help="of a device (default: %(default)s)")
    shape.add_argument("--heads", type=int, default=32, metavar="H", help="of queries (default: %(default)s)")
    shape.add_argument("--key-value-heads", type=int, default=8, metavar="K", help="(default: %(default)s)")
    shape.add_argument("--head-size", type=int, default=128, metavar="D", help="(default: %(default)s)")
    documents = parser.add_argument_group("documents")
    documents.add_argument(
        "--documents",
        default="one",
        metavar="one|N|PATH",
        help="one fills each row; N tokens each; or packed lengths of the documents in a .jsonl file or a folder of "
        "them (default: %(default)s)",
    )
    documents.add_argument("--field", default="text", metavar="NAME", help="of the text (default: %(default)s)")
    documents.add_argument(
        "--tokenizer", metavar="DIR_OR_FILE", help="counts the tokens (default: four characters are a token)"
    )
    running = parser.add_argument_group("running")
    running.add_argument("--repeats", type=int, default=10, metavar="N", help="medians of N (default: %(default)s)")
    running.add_argument("--only", nargs="+", metavar="NAME", help="variants whose names begin so")
    for name in ("forward", "forward-tile", "backward", "backward-tile"):
        running.add_argument(f"--{name}", type=int, metavar="N", help="our block or tile, instead of the table's")
    running.add_argument(
        "--timeout", type=float, default=3600, metavar="S", help="for the compiler (default: %(default)s)"
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.planning.kernel_costs import Shape

    if options.sequence_length % 128 or options.sequence_length < 128:
        raise UsageError(f"--sequence-length={options.sequence_length} is no multiple of 128")
    if options.rows < 1 or options.repeats < 1 or options.heads % options.key_value_heads:
        raise UsageError("--rows and --repeats are at least 1, and --heads a multiple of --key-value-heads")
    shape = Shape(options.rows, options.sequence_length, options.heads, options.key_value_heads, options.head_size)
    lengths, source = _document_lengths(options)
    segment_ids_RxT, used = _rows_of(lengths, shape)
    # tokens lie in documents of this length on average, as a token sees it
    document_length = int((used**2).sum() / used.sum())
    described = {
        "documents": source,
        "packed_rows": len(segment_ids_RxT),
        "mean_length": float(used.mean()),
        "document_length": document_length,
    }
    print(
        f"{len(segment_ids_RxT):,} rows of {shape.positions:,} positions, {len(used):,} documents of "
        f"{used.mean():,.0f} tokens on average, {document_length:,} for the average token ({source})"
    )
    if options.topology:
        rows = _predict(options, shape, segment_ids_RxT, used, document_length)
    else:
        from seallm_jax.cli.bench_attention_device import measure

        rows = measure(options, shape, segment_ids_RxT)
    return {"topology": options.topology, "static_prediction": bool(options.topology), **described, "results": rows}


def _document_lengths(options: argparse.Namespace) -> tuple[list[int], str]:
    if options.documents == "one":
        return [options.sequence_length] * options.rows, "one document a row"
    if options.documents.isdigit() and int(options.documents):
        length = int(options.documents)
        return [length] * max(1, options.rows * options.sequence_length // length), f"documents of {length} tokens"
    path = pathlib.Path(options.documents)
    files = sorted(path.glob("**/*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise UsageError(f"--documents={options.documents} is no .jsonl file and no folder that holds one")
    texts = [str(record[options.field]) for file in files for record in read_jsonl(file) if record.get(options.field)]
    if not texts:
        raise UsageError(f"no document in {path} has a field {options.field!r}; name it with --field")
    if options.tokenizer:
        from seallm_jax.tokenization.tokenizer import Tokenizer

        encoded = Tokenizer.load(options.tokenizer).encode_batch(texts)
        return [len(ids) + 1 for ids in encoded], f"{path}, tokens of {options.tokenizer}"
    return [len(text) // 4 + 1 for text in texts], f"{path}, four characters a token"


def _rows_of(lengths: list[int], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """int32 [R, T] segment ids of best-fit rows in a fixed random order, whole batches only; and their lengths."""
    import numpy as np

    from seallm_jax.data.packing import pack

    T = shape.positions
    pieces = np.array([min(T, length - start) for length in lengths for start in range(0, length, T)])
    packed = pack(pieces, T)
    order = np.random.default_rng(0).permutation(len(packed))
    kept = [packed[row] for row in order[: max(len(order) // shape.rows * shape.rows, 0)]]
    if not kept:
        raise UsageError(f"the documents fill {len(packed)} rows of {T} positions, fewer than --rows={shape.rows}")
    segment_ids_RxT = np.zeros((len(kept), T), np.int32)
    for ids_T, row in zip(segment_ids_RxT, kept, strict=True):
        ids = np.repeat(np.arange(1, len(row) + 1), pieces[row])
        ids_T[: len(ids)] = ids
    return segment_ids_RxT, np.concatenate([pieces[row] for row in kept])


def _predict(
    options: argparse.Namespace, shape: Shape, segment_ids_RxT: np.ndarray, used: np.ndarray, document_length: int
) -> list[dict[str, Any]]:
    import jax
    import numpy as np

    from seallm_jax.cli.bench_device import chosen
    from seallm_jax.kernels.attention.block_sizes import padded_length
    from seallm_jax.planning.bundles import CORES, KernelCycles
    from seallm_jax.planning.kernel_costs import packed_cycles, read_costs, splash_cycles, tokamax_cycles

    # as attention fills rows up
    more = padded_length(shape.positions) - shape.positions
    shape = dataclasses.replace(shape, positions=shape.positions + more)
    segment_ids_RxT = np.pad(segment_ids_RxT, ((0, 0), (0, more)))
    jax.config.update("jax_platforms", "cpu")  # this process counts steps only; the TPU compiler is in another
    variants = {name: dict(variant) for name, variant in chosen(VARIANTS, options.only).items()}
    given = ("forward", "forward_tile", "backward", "backward_tile")
    sizes = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    if bad := [size for size in sizes.values() if size < 128 or shape.positions % size]:
        raise UsageError(f"blocks and tiles are multiples of 128 that divide {shape.positions}, got {bad[0]}")
    if "seallm" in variants:
        variants["seallm"]["sizes"] = sizes
    costs = read_costs(options.topology, shape, variants, document_length=document_length, timeout=options.timeout)
    core, R = CORES[options.topology], len(segment_ids_RxT)
    # padding as a document of its own at the end: ranges of ids are then as narrow as they can be
    padded_RxT = segment_ids_RxT + (segment_ids_RxT == 0) * (segment_ids_RxT.max() + 1)
    results = []
    for name, cost in costs.items():
        variant = variants[name]
        result: dict[str, Any] = {"name": name, "error": cost.get("error")}
        results.append(result)
        if result["error"]:
            print(f"{name} is left out: {result['error']}")
            continue
        kernels = {
            key: KernelCycles(value["step"], *(tuple(value[part]) for part in ("opening", "products", "closing")))
            for key, value in cost["kernels"].items()
        }
        if variant["kind"] == "ours":
            blocks = cost["sizes"]
            cycles = packed_cycles(kernels, segment_ids_RxT, shape, blocks["forward"], blocks["backward"])
            label = "/".join(str(blocks[part]) for part in given)
        else:
            count = splash_cycles if variant["kind"] == "splash" else tokamax_cycles
            cycles = {
                key: count(kernel, padded_RxT, shape, variant[key], key_major=key == "backward")
                for key, kernel in kernels.items()
            }
            label = " ".join("/".join(map(str, variant[key])) for key in ("forward", "backward"))
        forward, total = cycles["forward"], sum(cycles.values())
        pairs = float((used * (used + 1) / 2).sum())
        needed = 7 * 2 * shape.heads * shape.head_size * pairs / core.flops_per_cycle
        milliseconds = 1e3 / core.clock_hz
        result |= {
            "blocks": label,
            "forward_ms": forward / R * milliseconds,
            "backward_ms": (total - forward) / R * milliseconds,
            "sum_ms": total / R * milliseconds,
            "matrix_unit_share": needed / total,
            **{
                f"{part}_ms": None
                if cost.get(f"{part}_cycles") is None
                else cost[f"{part}_cycles"] / shape.rows * milliseconds
                for part in ("outside", "listing")  # None: not known
            },
            "temporary_bytes": cost["temporary_bytes"],
            "kernels": cost["kernels"],
        }
    _show(options, shape, results)
    return results


def _show(options: argparse.Namespace, shape: Shape, results: list[dict[str, Any]]) -> None:
    found = [result for result in results if not result["error"]]
    ours = next((result["sum_ms"] for result in found if result["name"] == "seallm"), None)
    print_table(
        f"STATIC PREDICTION for {options.topology}, no TPU was used: {shape.heads} query heads, "
        f"{shape.key_value_heads} key/value heads of {shape.head_size}, bfloat16, causal, segments; ms per row of "
        f"{shape.positions:,}",
        [
            {
                "": result["name"],
                "blocks": result["blocks"],
                "forward": result["forward_ms"],
                "backward": result["backward_ms"],
                "sum": result["sum_ms"],
                "ours / sum": f"{ours / result['sum_ms']:.2f}" if ours else None,
                "MXU": f"{result['matrix_unit_share']:.1%}",
                "around (XLA's estimate)": result["outside_ms"],
                "lists in it": result["listing_ms"],
                "temporary MiB": result["temporary_bytes"] / 2**20,
            }
            for result in found
        ],
    )
