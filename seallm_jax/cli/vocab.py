"""`seallm vocab`: extend the base tokenizer and the base model's embeddings to new languages."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.paths import file_digest, read_jsonl, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import ModelConfig, VocabConfig

if TYPE_CHECKING:
    from seallm_jax.tokenization.extend import Extension

FERTILITY_FILE = "fertility.json"
EXAMPLES = {
    "learn": "--corpus en.jsonl --size=4096 --output=base/",
    "extend": "--tokenizer=base/ --corpus km.jsonl lo.jsonl --protect en.jsonl --size=6000 --output=extended/",
    "init": "--model=llama/ --tokenizer=extended/ --output=llama-extended/",
    "report": "--tokenizer=extended/ --base=base/ --corpus heldout/ --parallel=ntrex.jsonl",
}


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "vocab",
        help="learn and extend tokenizers, report fertility",
        description="With --config: the vocabulary stage of a run (extend the base tokenizer, initialise the new "
        "rows of the base model, report fertility). With a sub-command: the same on any tokenizer and"
        " text.",
        example="seallm vocab extend --tokenizer=base/ --corpus=km.txt lo.txt --size=16512 --output=extended/",
    )
    add_run_arguments(parser, required=False)
    commands = parser.add_subparsers(title="sub-commands", metavar="SUBCOMMAND")
    _add(commands, "learn", _learn, "learn a SentencePiece BPE tokenizer", tokenizer=False, size=True)
    extend = _add(commands, "extend", _extend, "add tokens to a tokenizer; old ids never move", size=True)
    extend.add_argument("--protect", nargs="+", default=[], metavar="PATH", help="text whose ids should stay")
    defaults = VocabConfig()
    for name, kind in (("alpha", float), ("minimum_frequency", int)):
        extend.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help="default: %(default)s")
    what = "tokens per byte and relative to English, before and after"
    report = _add(commands, "report", _report, what, output=False)
    report.add_argument("--base", metavar="DIR", help="tokenizer to compare with (default: the same)")
    report.add_argument("--parallel", metavar="PATH", help="aligned text: LL.txt files or .jsonl")
    what = "embeddings for an extended tokenizer, into a Hugging Face folder"
    init = add_command(commands, "init", help=what, description=what, example=f"seallm vocab init {EXAMPLES['init']}")
    init.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder of the base model")
    init.add_argument("--tokenizer", required=True, metavar="DIR", help="tokenizer made by `seallm vocab extend`")
    init.add_argument("--initialization", choices=("mean", "global_mean"), default="mean")
    init.add_argument("--output", required=True, metavar="DIR")
    init.set_defaults(command=_init)
    parser.set_defaults(command=command)
    return parser


def _add(commands, name, function, help, *, tokenizer=True, size=False, output=True) -> argparse.ArgumentParser:
    parser = add_command(commands, name, help=help, description=help, example=f"seallm vocab {name} {EXAMPLES[name]}")
    if tokenizer:
        parser.add_argument("--tokenizer", required=True, metavar="DIR_OR_FILE", help="directory or tokenizer.model")
    parser.add_argument("--corpus", required=True, nargs="+", metavar="PATH", help=".jsonl, .parquet or .txt files")
    if size:
        parser.add_argument("--size", required=True, type=int, metavar="N", help="tokens")
    if output:
        parser.add_argument("--output", required=True, metavar="DIR", help="directory that AutoTokenizer loads")
    parser.set_defaults(command=function)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if not options.config:
        raise UsageError("give --config=FILE for the stage of a run, or a sub-command; see seallm vocab --help")
    outcome = execute(STAGE, make_context(options)).outcome
    show(outcome)
    return outcome


def show(outcome: dict[str, Any]) -> None:
    """Prints the fertility table."""
    print_table(
        f"Vocabulary: {outcome['base_size']:,} + {outcome['new_tokens']:,} tokens; fertility on held-out text",
        fertility_columns(outcome["fertility"]),
    )


def fertility_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fertility table for people."""
    return [
        {
            "language": row["language"],
            "name": row["name"],
            "tokens/byte before": row["base_tokens_per_byte"] if row["bytes"] else None,
            "after": row["extended_tokens_per_byte"] if row["bytes"] else None,
            "fewer": f"{1 / row['ratio']:.2f}x" if row["ratio"] else "",
            "vs English before": row["base_relative"],
            "vs English after": row["extended_relative"],
            "lines unchanged": f"{row['unchanged']:.0%}" if row["unchanged"] is not None else "",
        }
        for row in rows
    ]


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.corpus.parallel import read_parallel
    from seallm_jax.tokenization.extend import extend_tokenizer
    from seallm_jax.tokenization.fertility import fertility_table
    from seallm_jax.tokenization.fertility_plot import plot_fertility
    from seallm_jax.training.checkpoint import save_parameters

    config = context.config
    base_model = stage_model(context, "base")
    base = base_model.load_tokenizer()
    corpus = context.directory.stage("corpus")
    languages = context.languages.codes
    old = [code for code in languages if code in config.base.languages]
    new = [code for code in languages if code not in old] or list(languages)
    extension = extend_tokenizer(
        base,
        {code: _stage_texts(corpus / "train" / f"{code}.jsonl") for code in new},
        config.vocab.size,
        alpha=config.vocab.alpha,
        minimum_frequency=config.vocab.minimum_frequency,
        protected_texts=[
            text
            for code in old
            if config.vocab.protect_base
            for text in _stage_texts(corpus / "train" / f"{code}.jsonl")
        ],
        progress=context.progress,
    )
    extension.save(directory)

    mesh = build_mesh(config.mesh)
    base_shape, _, parameters = base_model.load_parameters(mesh)
    model, parameters = _extend_parameters(
        parameters, base_shape, extension, config.vocab.initialization, mesh.shape["tensor"], config.seed
    )
    save_parameters(directory / "checkpoints", parameters, model, tokenizer_digest=extension.tokenizer.digest)

    heldout = {code: list(_stage_texts(corpus / "heldout" / f"{code}.jsonl")) for code in languages}
    parallel = read_parallel(resolve_path(config.data.parallel, "parallel"))
    parallel = {code: lines for code, lines in parallel.items() if code in languages}
    rows = fertility_table(base, extension.tokenizer, heldout, parallel if "en" in parallel else None)
    write_json(directory / FERTILITY_FILE, rows)
    plot_fertility(rows, directory / "fertility.png")
    return {
        "model": dataclasses.asdict(model),
        "base_size": base.size,
        "new_tokens": extension.tokenizer.size - base.size,
        "tokenizer_digest": extension.tokenizer.digest,
        "fertility": rows,
    }


def _extend_parameters(
    parameters: Any, model: ModelConfig, extension: Extension, method: str, tensor: int, seed: int
) -> tuple[ModelConfig, Any]:
    """The shape and the parameters with rows for the extension's new tokens."""
    import jax
    import numpy as np

    from seallm_jax.core.vocabulary import Vocabulary
    from seallm_jax.models.layout import path_name
    from seallm_jax.tokenization.embeddings import initialize_rows

    vocabulary = Vocabulary.padded(extension.tokenizer.size, tensor=tensor)

    def extended(path, leaf):
        if path_name(path) not in ("embedding.kernel", "head.kernel"):
            return leaf
        rows = initialize_rows(np.asarray(leaf), extension, method, padded_size=vocabulary.padded_size, seed=seed)
        return jax.numpy.asarray(rows)

    model = dataclasses.replace(
        model, vocabulary_size=vocabulary.logical_size, padded_vocabulary_size=vocabulary.padded_size
    )
    return model, jax.tree_util.tree_map_with_path(extended, parameters)


def _stage_texts(path: pathlib.Path) -> Iterator[str]:
    return (record["text"] for record in read_jsonl(path))


STAGE = Stage(
    name="vocab",
    inputs=lambda context: {
        "corpus": context.manifest("corpus").digest,
        "base": context.manifest("base").digest,
        "parallel": file_digest(resolve_path(context.config.data.parallel, "parallel")),
    },
    section=lambda config: to_dict(config.vocab),
    compute=_compute,
)


def _texts_by_language(paths: list[str]) -> dict[str, list[str]]:
    """Normalised texts of files, by language: labelled, named after the file, or identified."""
    from seallm_jax.core.schema import CorpusConfig
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.corpus.normalize import normalize_text
    from seallm_jax.corpus.reader import find_files, read_documents

    texts: dict[str, list[str]] = {}
    for path in paths:
        for file in find_files(pathlib.Path(path)):
            for record in read_documents(file, CorpusConfig()):
                if isinstance(record, Document) and (text := normalize_text(record.text)):
                    texts.setdefault(record.language or identify_language(text) or "?", []).append(text)
    if not texts:
        raise SeallmError(f"no text in {', '.join(paths)}")
    return texts


def _learn(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.tokenization.learn import learn_tokenizer

    texts = [text for group in _texts_by_language(options.corpus).values() for text in group]
    tokenizer = learn_tokenizer(texts, options.size, progress=Progress())
    tokenizer.save(options.output)
    print(f"{options.output}: {tokenizer.size:,} tokens")
    return {"output": options.output, "size": tokenizer.size, "digest": tokenizer.digest}


def _extend(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.tokenization.extend import extend_tokenizer
    from seallm_jax.tokenization.tokenizer import Tokenizer

    protected = _texts_by_language(options.protect) if options.protect else {}
    extension = extend_tokenizer(
        Tokenizer.load(options.tokenizer),
        _texts_by_language(options.corpus),
        options.size,
        alpha=options.alpha,
        minimum_frequency=options.minimum_frequency,
        protected_texts=[text for group in protected.values() for text in group],
        progress=Progress(),
    )
    extension.save(options.output)
    print(f"{options.output}: {extension.base_size:,} + {len(extension.new_pieces):,} tokens")
    return {"output": options.output, "size": extension.tokenizer.size, "digest": extension.tokenizer.digest}


def _report(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.corpus.parallel import read_parallel
    from seallm_jax.tokenization.fertility import fertility_table
    from seallm_jax.tokenization.tokenizer import Tokenizer

    extended = Tokenizer.load(options.tokenizer)
    base = Tokenizer.load(options.base) if options.base else extended
    parallel = read_parallel(pathlib.Path(options.parallel)) if options.parallel else None
    rows = fertility_table(base, extended, _texts_by_language(options.corpus), parallel)
    print_table("Fertility", fertility_columns(rows))
    return {"fertility": rows}


def _init(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.interop.huggingface import export_model, import_model
    from seallm_jax.tokenization.extend import Extension
    from seallm_jax.tokenization.tokenizer import Tokenizer

    progress = Progress()
    extension = Extension.load(options.tokenizer)
    digest = Tokenizer.load(options.model).digest
    if digest != extension.base_digest:
        raise SeallmError(f"{options.tokenizer} extends another tokenizer than that of {options.model}")
    base = import_model(options.model, progress=progress)
    model, parameters = _extend_parameters(base.parameters, base.config, extension, options.initialization, 1, 0)
    summary = export_model(parameters, model, options.tokenizer, options.output, progress=progress)
    print(f"{options.output}: {extension.base_size:,} + {len(extension.new_pieces):,} tokens")
    return dataclasses.asdict(summary)
