"""`seallm expand`: a deeper model from a model, by copying blocks."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.core.errors import UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import file_digest
from seallm_jax.core.progress import Progress


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "expand",
        help="add blocks to a model",
        description="llama_pro follows evenly spread blocks with copies that write zeros: the model computes what it"
        " did until it is trained. depth copies blocks of the second half and adds noise. Prints the numbers of the new"
        " blocks, from 0, and writes a Hugging Face folder with manifest.json.",
        example="seallm expand --model=base/ --method=llama_pro --blocks=8 --output=deeper/",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder, or a name on the Hub")
    parser.add_argument("--method", required=True, choices=("llama_pro", "depth"))
    parser.add_argument("--blocks", required=True, type=int, metavar="N", help="blocks to add")
    parser.add_argument("--noise", type=float, metavar="X", help="depth: standard deviation, default 0.01")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, default 0")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the model's")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Plans the blocks, then writes the deeper model tensor by tensor."""
    from seallm_jax.interop.derived_model import write_derived_model
    from seallm_jax.interop.model_card import ModelCard
    from seallm_jax.interop.source_model import SourceModel
    from seallm_jax.models.surgery.expand import Expansion

    started = time.monotonic()
    if options.method != "depth" and options.noise is not None:
        raise UsageError(f"--noise={options.noise} is for --method=depth; {options.method} adds none")
    model = SourceModel(options.model)
    if pathlib.Path(options.output).resolve() == model.directory.resolve():
        raise UsageError(f"--output={options.output} is the model itself; write to another folder")
    layers = model.config.num_layers
    if options.method == "llama_pro":
        expansion = Expansion.llama_pro(layers, options.blocks)
    else:
        noise = {} if options.noise is None else {"noise": options.noise}
        expansion = Expansion.depth(layers, options.blocks, seed=options.seed, **noise)
    config = expansion.config(model.config)

    def tensor(each):
        if each.layer is None:
            return model.tensor(each.name)
        source = each.rows[0].name.format(layer=expansion.sources[each.layer])
        array = model.tensor(source)
        for row in each.rows:
            view = row.from_checkpoint(array, config)
            view[...] = expansion.block_parameter(row.path, each.layer, view)
        return array

    progress = Progress()
    progress.say(f"reading {model.directory}")
    inputs = {"model": file_digest(model.directory)}
    summary = write_derived_model(
        model.files,
        config,
        tensor,
        options.output,
        dtype=options.dtype,
        card=ModelCard(
            name=pathlib.Path(options.output).name,
            base=str(options.model),
            recipe=f"{options.blocks} blocks added ({options.method}): {', '.join(map(str, expansion.inserted))}",
        ),
        progress=progress,
    )
    settings = dataclasses.asdict(expansion) | {"method": options.method, "blocks": options.blocks}
    outcome = {
        "path": str(summary.path),
        "model": str(options.model),
        "layers_before": layers,
        "layers": config.num_layers,
        "inserted": list(expansion.inserted),
        "copied": [expansion.sources[block] for block in expansion.inserted],
        "parameters": summary.parameters,
        "dtype": summary.dtype,
    }
    Manifest("expand", inputs, settings, expansion.seed, outcome, time.monotonic() - started).write(summary.path)
    print(f"{layers} -> {config.num_layers} blocks ({options.method}): {summary.path} ({summary.bytes / 1e6:,.1f} MB)")
    print(f"new blocks: {', '.join(map(str, expansion.inserted))}")
    return outcome | {"settings": settings, "inputs": inputs}
