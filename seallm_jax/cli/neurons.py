"""`seallm neurons`: the neurons of a run's model that belong to some of its languages."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import TRAINING_STAGES, present_models, stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.mesh import build_mesh

if TYPE_CHECKING:
    from seallm_jax.core.batch import Batch
    from seallm_jax.data.shards import ShardReader
    from seallm_jax.models.neurons import Neurons


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "neurons",
        help="find the neurons that belong to a language, to train only these",
        description="Measures how much each neuron matters for packed text of each language: by how much the loss "
        "would change without it, to first order (arXiv 1906.10771). Chosen are the neurons that matter most to one of "
        "--languages and are not among those that matter most to one of --without. Writes them to a file for "
        "optimizer.neurons of a training stage, which then trains nothing else, as SeaLLMs 3 (arXiv 2407.19672). "
        "Rows per batch, dtype and kernels are those of config.evaluation.",
        example="seallm neurons --config=configs/quickstart.py --workdir=runs/mine --languages th lo --without en",
    )
    add_run_arguments(parser)
    stages = ("vocab", *TRAINING_STAGES)
    parser.add_argument("--stage", choices=stages, help="whose model (default: the last that has finished)")
    parser.add_argument("--languages", nargs="+", required=True, metavar="LL", help="whose neurons to find")
    parser.add_argument(
        "--without", nargs="*", default=["en"], metavar="LL", help="whose neurons to leave out (default: en)"
    )
    parser.add_argument(
        "--share", type=float, default=0.01, metavar="X", help="share of a kind that matters most (default: 0.01)"
    )
    parser.add_argument("--rows", type=int, default=64, metavar="N", help="rows of each language (default: 64)")
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND", help="mlp, attention.query, attention.key, attention.value (default: all)"
    )
    parser.add_argument("--output", default="neurons.json", metavar="FILE", help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.data.shards import open_shards
    from seallm_jax.models.neurons import KINDS
    from seallm_jax.training.neuron_choice import check_choice, choose
    from seallm_jax.training.neuron_importance import neuron_importance

    languages, without, kinds = (
        tuple(dict.fromkeys(values)) for values in (options.languages, options.without, options.kinds or KINDS)
    )
    check_choice(languages, without, options.share)
    if options.rows < 1:
        raise UsageError(f"--rows is {options.rows}; it must be positive")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"--kinds: there are no neurons of kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    context = make_context(options)
    config = context.config
    stage = options.stage or _last_finished(context)
    if stage not in present_models(config):
        raise UsageError(f"the config has no stage {stage!r}: config.{stage} is not set")
    model = stage_model(context, stage)
    context.manifest("pack")
    shards = open_shards(context.directory.stage("pack"), tokenizer_digest=model.load_tokenizer().digest)
    text = [reader for reader in shards if reader.index.kind.partition("-")[0] == "text"]
    rows = {code: _draw(text, code, options.rows, config.seed) for code in (*languages, *without)}
    for code, drawn in rows.items():
        if len(drawn) < options.rows:
            context.progress.say(f"  {code}: {len(drawn)} rows, all there are")
    mesh = build_mesh(config.mesh)
    decoder = model.load(mesh)
    importances = {}
    with context.progress.task("importance of neurons", total=sum(map(len, rows.values()))) as advance:
        for code, drawn in rows.items():
            importances[code] = neuron_importance(
                decoder,
                _batches(context, code, drawn),
                kinds,
                mesh=mesh,
                compute_dtype=config.evaluation.compute_dtype,
                kernels=dataclasses.replace(config.evaluation.kernels, anchor=config.packing.mode == "anchor"),
            )
            advance(len(drawn), code)
    neurons = choose(importances, languages, without, options.share)
    if not any(map(any, neurons.chosen.values())):
        raise SeallmError(
            f"every neuron that matters most to {', '.join(languages)} does so to {', '.join(without)}, too; "
            f"give another --share than {options.share:g}, or more --rows"
        )
    about = {
        "languages": languages,
        "without": without,
        "share": options.share,
        "rows": {code: len(drawn) for code, drawn in rows.items()},
        "seed": config.seed,
        "stage": stage,
        "model": context.manifest(stage).digest,
    }
    neurons.write(options.output, **about)
    table = _table(neurons, {kind: importance.shape[1] for kind, importance in importances[languages[0]].items()})
    print_table(f"Neurons of {', '.join(languages)} in the model of {stage}", table)
    print(f"neurons: {options.output}")
    print(f"to train nothing else: {_next_step(context, stage, options.output)}")
    return about | {"path": str(options.output), "digest": neurons.digest, "kinds": table}


def _last_finished(context: Context) -> str:
    """The last stage with a model in the run's vocabulary; vocab where none has finished."""
    stages = [stage for stage in present_models(context.config) if stage != "base"]
    return next((stage for stage in reversed(stages) if Manifest.read(context.directory.stage(stage))), "vocab")


def _draw(readers: Sequence[ShardReader], code: str, count: int, seed: int) -> list[tuple[ShardReader, int]]:
    """Up to `count` places of rows with text in a language, drawn from all there are, by the seed alone."""
    import numpy as np

    held = [reader for reader in readers if code in reader.index.languages]
    ends = np.cumsum([len(reader) for reader in held])
    drawn: list[tuple[ShardReader, int]] = []
    for place in np.random.default_rng([seed, *code.encode()]).permutation(ends[-1] if held else 0):
        number = int(np.searchsorted(ends, place, side="right"))
        reader = held[number]
        row = int(place - ends[number]) + len(reader)
        # a group of languages shares rows, not all of which hold this one
        if len(reader.index.languages) == 1 or reader.index.languages.index(code) in reader[row].table[:, 4]:
            drawn.append((reader, row))
        if len(drawn) == count:
            break
    if not drawn:
        known = sorted({code for reader in readers for code in reader.index.languages})
        raise UsageError(f"the run has no packed text in {code!r}; there is text in {', '.join(known)}")
    return drawn


def _batches(context: Context, code: str, drawn: Sequence[tuple[ShardReader, int]]) -> Iterator[Batch]:
    """Batches of the rows drawn, the last one filled up with padding; only text in the language has weight."""
    from seallm_jax.core.batch import Batch
    from seallm_jax.data.row import PackedRow
    from seallm_jax.data.row_arrays import row_arrays

    size, languages = context.config.evaluation.batch_rows, context.languages
    for start in range(0, len(drawn), size):
        part = drawn[start : start + size]
        missing = size - len(part)
        readers = [reader for reader, _ in part] + [part[0][0]] * missing
        rows = [reader[row] for reader, row in part] + [PackedRow.empty()] * missing
        batch = Batch(
            **row_arrays(
                rows,
                context.config.packing.sequence_length,
                [reader.language_ids(languages) for reader in readers],
                [reader.index.mode for reader in readers],
            )
        )
        weights_BxT = batch.loss_weights * (batch.language_ids == languages.id_of(code))
        yield dataclasses.replace(batch, loss_weights=weights_BxT)


def _table(neurons: Neurons, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row a kind: how many there are and how many are chosen, in all and in each third of the layers."""
    rows = []
    for kind, layers in neurons.chosen.items():
        total, chosen = sizes[kind] * len(layers), sum(map(len, layers))
        thirds = {"lower layers": 0, "middle layers": 0, "upper layers": 0}
        names = tuple(thirds)
        for number, layer in enumerate(layers):
            thirds[names[(2 * number + 1) * 3 // (2 * len(layers))]] += len(layer)  # where the layer's middle lies
        rows.append({"kind": kind, "neurons": total, "chosen": chosen, "share": f"{chosen / total:.2%}"} | thirds)
    return rows


def _next_step(context: Context, stage: str, path: str) -> str:
    """The command line that trains the neurons: that of the stage after this model, or what a run from it needs."""
    models = present_models(context.config)
    after = models[models.index(stage) + 1 :]
    if not after:
        return f"--config.pretrain.optimizer.neurons={path}, in a run that starts from this model"
    return f"seallm train {context.command} --stage={after[0]} --config.{after[0]}.optimizer.neurons={path}"
