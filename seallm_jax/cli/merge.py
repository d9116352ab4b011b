"""`seallm merge`: several fine-tuned models of one base as one model, without training."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import file_digest, read_json
from seallm_jax.core.progress import Progress

if TYPE_CHECKING:
    from seallm_jax.interop.source_model import SourceModel

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "della")
# what may differ between a base and its fine-tuned models; the base's is kept
FREE_FIELDS = ("max_positions", "initializer_range")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "merge",
        help="merge fine-tuned models of one base",
        description="Merges models tensor by tensor, in float32, with one tensor of each in memory. Settings have the"
        " names and defaults of mergekit. Tokenizer, config and generation config are the base's. Writes a Hugging Face"
        " folder with manifest.json.",
        example="seallm merge --method=ties --base=base/ --models chat/ thai/ --density=0.2 --output=merged/",
    )
    parser.add_argument("--method", required=True, choices=METHODS)
    parser.add_argument("--base", metavar="DIR", help="the models' common base; linear needs none")
    parser.add_argument("--models", required=True, nargs="+", metavar="DIR", help="folders, or names on the Hub")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one, or one a model; default 1")
    parser.add_argument(
        "--density", nargs="+", type=float, metavar="D", help="share of entries to keep; one, or one a model; default 1"
    )
    parser.add_argument("--lambda", dest="scale", type=float, default=1.0, metavar="X", help="factor of the sum")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="divide by the sum of weights (default: linear, ties and della do)",
    )
    parser.add_argument("--epsilon", type=float, default=0.15, help="della: spread of the density, default 0.15")
    parser.add_argument("--seed", type=int, default=0, help="of what dare_ties and della drop, default 0")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the base's")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Checks that the models belong together, then merges them."""
    from seallm_jax.interop.derived_model import write_derived_model
    from seallm_jax.interop.model_card import ModelCard
    from seallm_jax.interop.source_model import SourceModel
    from seallm_jax.models.surgery.merge import Merge

    started = time.monotonic()
    if options.base is None and options.method != "linear":
        raise UsageError(f"{options.method} adds up differences from a base; give --base=DIR")
    merge = Merge(
        method=options.method,
        weights=_for_each(options, "weights", default=1.0),
        densities=_for_each(options, "density", default=None),
        normalize=options.normalize,
        scale=options.scale,
        epsilon=options.epsilon,
        seed=options.seed,
    )
    models = [SourceModel(source) for source in options.models]
    base = SourceModel(options.base) if options.base else models[0]
    _check_output(options.output, [base, *models])
    for model in models:
        _check_fit(base, model)

    def tensor(each):
        origin = None if merge.method == "linear" else base.tensor(each.name)
        return merge.tensor(each.name, origin, (model.tensor(each.name) for model in models))

    progress = Progress()
    with progress.task("reading digests", total=len(models) + 1) as advance:
        inputs = {}
        for name, model in {"base": base, **{f"model {n}": model for n, model in enumerate(models, 1)}}.items():
            inputs[name] = file_digest(model.directory)
            advance(1, name)
    recipe = "\n".join(f"- {source}, weight {w:g}" for source, w in zip(options.models, merge.weights, strict=True))
    summary = write_derived_model(
        base.files,
        base.config,
        tensor,
        options.output,
        dtype=options.dtype,
        card=ModelCard(
            name=pathlib.Path(options.output).name,
            base=str(options.base or options.models[0]),
            recipe=f"A merge ({merge.method}) of\n\n{recipe}",
        ),
        progress=progress,
    )
    settings = dataclasses.asdict(merge) | {"normalize": merge.normalizes}
    outcome = {
        "path": str(summary.path),
        "base": str(options.base or options.models[0]),
        "models": list(options.models),
        "parameters": summary.parameters,
        "dtype": summary.dtype,
    }
    Manifest("merge", inputs, settings, merge.seed, outcome, time.monotonic() - started).write(summary.path)
    print(f"merged {len(models)} models ({merge.method}): {summary.path} ({summary.bytes / 1e6:,.1f} MB)")
    return outcome | {"settings": settings, "inputs": inputs}


def _for_each(options: argparse.Namespace, name: str, *, default: float | None) -> tuple[float, ...]:
    """A value for each model, from none, one or all of them."""
    values: Sequence[float] | None = getattr(options, name)
    if values is None:
        return () if default is None else (default,) * len(options.models)
    if len(values) == 1:
        return tuple(values) * len(options.models)
    if len(values) != len(options.models):
        raise UsageError(
            f"--{name} has {len(values)} values for {len(options.models)} models; give one, or one for each"
        )
    return tuple(values)


def _check_output(output: str, sources: Sequence[SourceModel]) -> None:
    if pathlib.Path(output).resolve() in {source.directory.resolve() for source in sources}:
        raise UsageError(f"--output={output} is one of the models; write to another folder")


def _check_fit(base: SourceModel, model: SourceModel) -> None:
    """Raises SeallmError for a model that is not a fine-tuned version of the base."""
    for field in dataclasses.fields(base.config):
        ours, theirs = getattr(base.config, field.name), getattr(model.config, field.name)
        if ours != theirs and field.name not in FREE_FIELDS:
            raise SeallmError(
                f"{model.directory} has {field.name} {theirs!r} and {base.directory} has {ours!r}; only models of one "
                "shape can be merged"
            )
    known, others = _pieces(base), _pieces(model)
    for index in sorted(known.keys() & others.keys()):
        if known[index] != others[index]:
            raise SeallmError(
                f"token {index} is {others[index]!r} in {model.directory} and {known[index]!r} in {base.directory}; "
                "only models of one vocabulary can be merged"
            )


def _pieces(model: SourceModel) -> dict[int, str]:
    """Pieces by id, of a folder with tokenizer.json. Added tokens are left out: fine-tuning may rename these."""
    path = model.directory / "tokenizer.json"
    if not path.is_file():
        return {}
    vocabulary = read_json(path).get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        return {index: piece for piece, index in vocabulary.items()}
    return {index: entry[0] for index, entry in enumerate(vocabulary)}
