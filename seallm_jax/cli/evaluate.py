"""`seallm evaluate`: bits per byte, multiple choice and preference accuracy by language."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import present_models, stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import file_digest, read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import EvaluationConfig

if TYPE_CHECKING:
    import jax

    from seallm_jax.evaluation.choice_items import ChoiceItem
    from seallm_jax.evaluation.preference_pairs import PreferencePair
    from seallm_jax.evaluation.scorer import Scorer
    from seallm_jax.models.decoder import Decoder
    from seallm_jax.tokenization.tokenizer import Tokenizer

TASKS = ("bits_per_byte", "choices", "preferences")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "evaluate",
        help="bits per byte, multiple choice and preference accuracy by language",
        description="With --config: all models of a run on its held-out text. With --model: one Hugging Face folder.",
        example="seallm evaluate --model=runs/mine/export --tasks bits_per_byte xcopa_th.jsonl --data=heldout/",
    )
    add_run_arguments(parser, required=False)
    group = parser.add_argument_group("one model")
    group.add_argument("--model", metavar="DIR", help="Hugging Face folder")
    group.add_argument(
        "--tasks",
        nargs="+",
        default=["bits_per_byte", "choices"],
        metavar="NAME_OR_FILE",
        help=f"{', '.join(TASKS)}, or a .jsonl file of multiple-choice items (default: bits_per_byte choices)",
    )
    group.add_argument(
        "--data", metavar="PATH", help="documents (or preference pairs) to evaluate on (default: the embedded sample)"
    )
    group.add_argument("--sequence_length", type=int, default=1024, metavar="T", help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.model:
        outcome = _evaluate_folder(options)
    elif options.config:
        outcome = execute(STAGE, make_context(options)).outcome
    else:
        raise UsageError("give --config=FILE for the models of a run, or --model=DIR for one Hugging Face folder")
    show(outcome)
    return outcome


def show(outcome: dict[str, Any]) -> None:
    """Prints a table for each kind of evaluation, one column a model."""
    print_table("Bits per byte on held-out text", bits_table(outcome["bits_per_byte"]))
    print_table("Multiple choice (accuracy, normalised by bytes)", _choices_table(outcome["choices"]))
    print_table("Preference accuracy (chosen reply likelier per byte)", _preference_table(outcome["preferences"]))


def bits_table(bits: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a language, one column a model, and the change from the first model to the last."""
    models = list(bits)
    rows = []
    for code in bits[models[0]] if models else ():
        values = {model: bits[model][code]["bits_per_byte"] for model in models}
        row = {"language": code} | values
        if len(models) > 1:
            row["change"] = f"{values[models[-1]] / values[models[0]] - 1:+.1%}"
        rows.append(row)
    return rows


def _choices_table(choices: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for model, scores in choices.items():
        for score in scores:
            key = (score["task"], score["language"])
            row = rows.setdefault(key, {"task": key[0], "language": key[1], "items": score["items"]})
            row["chance"] = f"{score['chance']:.0%}"
            row[model] = _with_error(score["accuracy_normalized"])
    return list(rows.values())


def _preference_table(preferences: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for model, by_language in preferences.items():
        for code, score in by_language.items():
            row = rows.setdefault(code, {"language": code, "pairs": score["pairs"]})
            row[model] = _with_error(score["accuracy_normalized"])
    return list(rows.values())


def _with_error(accuracy: dict[str, Any]) -> str:
    error = accuracy["standard_error"]  # None for a single item
    return f"{accuracy['value']:.0%}" + (f" ± {error:.0%}" if error is not None else "")


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    config = context.config
    texts = context.directory.stage("corpus") / "heldout"
    heldout = {code: list(corpus_texts(texts, code)) for code in context.languages.codes}
    items = [item for item in _choice_items(config.evaluation.choices) if item.language in heldout]
    kept_out = context.manifest("corpus").outcome.get("kept_out", [])
    if file_digest(resolve_path(config.evaluation.choices, "choices")) not in kept_out:
        context.progress.say("warning: training text may hold these choices, which the corpus stage did not know")
    mesh = build_mesh(config.mesh)
    outcome: dict[str, Any] = {task: {} for task in TASKS}
    for name in present_models(config):
        result_file = directory / f"{name}.json"
        digest = context.manifest(name).digest
        if result_file.exists() and (found := read_json(result_file))["model"] == digest:  # of an interrupted run
            results = found
        else:
            context.progress.say(f"  evaluating {name}")
            model = stage_model(context, name)
            tokenizer = model.load_tokenizer()
            results = {"model": digest} | _evaluate(
                _scorer(model.load(mesh), config.evaluation, config.packing.sequence_length, mesh),
                tokenizer,
                heldout,
                items,
                _heldout_pairs(context, tokenizer) if config.preference is not None else [],
                maximum_documents=config.evaluation.maximum_documents,
                progress=context.progress,
            )
            write_json(result_file, results)
        for task in TASKS:
            if task in results:
                outcome[task][name] = results[task]
    return outcome


def _scorer(model: Decoder, config: EvaluationConfig, sequence_length: int, mesh: jax.sharding.Mesh | None) -> Scorer:
    from seallm_jax.evaluation.scorer import Scorer

    return Scorer(
        model,
        sequence_length=min(sequence_length, model.config.max_positions),
        batch_rows=config.batch_rows,
        compute_dtype=config.compute_dtype,
        mesh=mesh,
        kernels=config.kernels,
    )


def _evaluate(
    scorer: Scorer,
    tokenizer: Tokenizer,
    heldout: Mapping[str, Sequence[str]],
    items: Sequence[ChoiceItem],
    pairs: Sequence[PreferencePair],
    *,
    maximum_documents: int,
    progress: Progress,
) -> dict[str, Any]:
    """Results by task; a task without data is left out."""
    from seallm_jax.evaluation.bits_per_byte import bits_per_byte
    from seallm_jax.evaluation.choices import multiple_choice
    from seallm_jax.evaluation.preferences import preference_accuracy

    results: dict[str, Any] = {}
    if heldout:
        bits = bits_per_byte(scorer, tokenizer, heldout, maximum_documents=maximum_documents, progress=progress)
        results["bits_per_byte"] = bits.to_json()
    if items:
        results["choices"] = multiple_choice(scorer, tokenizer, items, progress=progress).to_json()
    if pairs:
        results["preferences"] = preference_accuracy(scorer, pairs, progress=progress).to_json()
    return results


def _choice_items(path: str) -> list[ChoiceItem]:
    from seallm_jax.evaluation.choice_items import read_choice_items

    return read_choice_items(resolve_path(path, "choices"))


def _heldout_pairs(context: Context, tokenizer: Tokenizer) -> list[PreferencePair]:
    """The pairs that the pack stage has left out of training."""
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.data.chat import ChatRenderer
    from seallm_jax.data.preferences import is_heldout
    from seallm_jax.evaluation.preference_pairs import read_preference_pairs

    data, seed = context.config.data, context.config.seed
    return read_preference_pairs(
        resolve_path(data.preferences, "preferences"),
        ChatRenderer(tokenizer),
        languages=context.languages.codes,
        identify=identify_language,
        keep=lambda pair: is_heldout(pair, data.preference_holdout, seed),
    )


STAGE = Stage(
    name="evaluate",
    inputs=lambda context: {
        "choices": file_digest(resolve_path(context.config.evaluation.choices, "choices")),
        **{name: context.manifest(name).digest for name in present_models(context.config)},
    },
    section=lambda config: (
        {key: value for key, value in to_dict(config.evaluation).items() if key != "choices"}
        | {"preference_holdout": config.data.preference_holdout}
    ),
    compute=_compute,
)


def _evaluate_folder(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates one Hugging Face folder; results are under its name, in the form of a run's outcome."""
    from seallm_jax.interop.huggingface import import_model
    from seallm_jax.tokenization.tokenizer import Tokenizer

    files = [pathlib.Path(task) for task in options.tasks if task not in TASKS]
    for file in files:
        if not file.exists():
            raise UsageError(f"task {str(file)!r} is neither one of {', '.join(TASKS)} nor a file")
    progress = Progress()
    heldout = _read_documents(options.data) if "bits_per_byte" in options.tasks else {}
    items = _choice_items("") if "choices" in options.tasks else []
    items += [item for file in files for item in _choice_items(str(file))]
    model = import_model(options.model, progress=progress).decoder()
    tokenizer = Tokenizer.load(options.model)
    pairs = _read_pairs(options.data, tokenizer) if "preferences" in options.tasks else []
    scorer = _scorer(model, EvaluationConfig(), options.sequence_length, None)
    results = _evaluate(scorer, tokenizer, heldout, items, pairs, maximum_documents=0, progress=progress)
    name = pathlib.Path(options.model).name
    return {task: {name: results[task]} if task in results else {} for task in TASKS}


def _read_documents(data: str | None) -> dict[str, list[str]]:
    from seallm_jax.core.schema import CorpusConfig
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.corpus.reader import find_files, read_documents

    documents: dict[str, list[str]] = {}
    for file in find_files(data or ""):
        for record in read_documents(file, CorpusConfig()):
            if isinstance(record, Document):
                documents.setdefault(record.language or identify_language(record.text) or "?", []).append(record.text)
    return documents


def _read_pairs(data: str | None, tokenizer: Tokenizer) -> list[PreferencePair]:
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.data.chat import ChatRenderer
    from seallm_jax.evaluation.preference_pairs import read_preference_pairs

    path = resolve_path(data or "", "preferences")
    return read_preference_pairs(path, ChatRenderer(tokenizer), identify=identify_language)
