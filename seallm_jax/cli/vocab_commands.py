"""`seallm vocab learn|extend|merge|init|report`: the vocabulary stage on any tokenizer and text."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.base_tokenizer import load_base_tokenizer
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import VocabConfig
from seallm_jax.core.vocab_config import INITIALIZATIONS, METHODS

_DEFAULTS = VocabConfig()


def add_parsers(commands) -> None:
    """Adds the sub-commands of `seallm vocab`."""
    _add_learn(commands)
    _add_extend(commands)
    _add_merge(commands)
    _add_init(commands)
    _add_report(commands)


def _add_learn(commands) -> None:
    parser = _add(
        commands, "learn", "learn a SentencePiece BPE tokenizer", "--corpus en.jsonl --size=4096 --output=base/"
    )
    _add_corpus(parser)
    parser.add_argument("--size", required=True, type=int, metavar="N", help="tokens")
    _add_output(parser)
    parser.set_defaults(command=_learn)


def _add_extend(commands) -> None:
    example = "--tokenizer=base/ --corpus km.jsonl lo.jsonl --protect en.jsonl --size=6000 --output=extended/"
    parser = _add(commands, "extend", "add tokens to a tokenizer; old ids never move", example)
    _add_tokenizer(parser)
    _add_corpus(parser)
    parser.add_argument("--method", choices=METHODS, default=_DEFAULTS.method, help="default: %(default)s")
    parser.add_argument(
        "--donor",
        nargs="+",
        default=[],
        metavar="PATH",
        help="vocabularies for donor, merge and append: .model, tokenizer folders, .txt or .json lists of pieces",
    )
    add_extension_arguments(parser)
    _add_output(parser)
    parser.set_defaults(command=_extend)


def _add_merge(commands) -> None:
    example = "--tokenizer=base/ --models zh.model id.model --size=8192 --output=merged/"
    parser = _add(commands, "merge", "add the tokens of trained models to a tokenizer", example)
    _add_tokenizer(parser)
    parser.add_argument("--models", required=True, nargs="+", metavar="PATH", help="as --donor of vocab extend")
    _add_corpus(parser, required=False, help="text to choose by gain; without it, the models' own order decides")
    parser.add_argument(
        "--method", choices=("merge", "append"), default="merge", help="append keeps all pieces, in the models' order"
    )
    add_extension_arguments(parser)
    _add_output(parser)
    parser.set_defaults(command=_merge)


def _add_init(commands) -> None:
    example = "--model=llama/ --tokenizer=extended/ --output=llama-extended/"
    parser = _add(commands, "init", "embeddings for an extended tokenizer, into a Hugging Face folder", example)
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder of the base model")
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="tokenizer made by `seallm vocab extend`")
    parser.add_argument("--initialization", choices=INITIALIZATIONS, default=_DEFAULTS.initialization)
    parser.add_argument("--output_initialization", choices=(*INITIALIZATIONS, "same"), default="same")
    _add_corpus(parser, required=False, help="text in the new languages, for the methods that read it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of noise and samples, default 0")
    _add_output(parser)
    parser.set_defaults(command=_init)


def _add_report(commands) -> None:
    example = "--tokenizer=extended/ --base=base/ --corpus heldout/ --parallel=ntrex.jsonl --plot=fertility.png"
    parser = _add(commands, "report", "fertility, unreachable tokens, efficiency: before and after", example)
    _add_tokenizer(parser)
    _add_corpus(parser)
    parser.add_argument("--base", metavar="DIR", help="tokenizer to compare with (default: the same)")
    parser.add_argument("--parallel", metavar="PATH", help="aligned text: LL.txt files or .jsonl")
    parser.add_argument("--plot", metavar="FILE", help="picture: .png, .svg or .pdf")
    parser.set_defaults(command=_report)


def add_extension_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of an extension that its methods share; `extension_options` reads them."""
    parser.add_argument("--size", type=int, metavar="N", help="new tokens; default: the sum of the budgets")
    parser.add_argument(
        "--budget", nargs="+", default=[], metavar="LL=N", help="new tokens per language at most, as th=1536 vi=2304"
    )
    for name in ("alpha", "minimum_frequency", "protected_ratio", "maximum_symbols", "pad_to"):
        default = getattr(_DEFAULTS, name)
        names = {f"--{name}", f"--{name.replace('_', '-')}"}
        parser.add_argument(*sorted(names), type=type(default), default=default, dest=name, help="default: %(default)s")
    parser.add_argument("--protect", nargs="+", default=[], metavar="PATH", help="text whose ids should stay")
    parser.add_argument(
        "--protected_scripts",
        "--protected-scripts",
        nargs="+",
        default=[],
        metavar="SCRIPT",
        help="scripts that get no token, as Latin; ASCII spares letters with diacritics only",
    )
    parser.add_argument("--strict", action="store_true", help="fail when the text supports fewer tokens")
    parser.add_argument("--pretokenizer", choices=("base", "mark_aware"), help="for byte-level tokenizers")


def extension_options(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `extend_tokenizer` from the command line."""
    names = ("alpha", "minimum_frequency", "protected_ratio", "maximum_symbols", "pad_to", "strict", "pretokenizer")
    protected = texts_by_language(options.protect) if options.protect else {}
    return {name: getattr(options, name) for name in names} | {
        "budgets": _budgets(options.budget),
        "protected_texts": [text for group in protected.values() for text in group],
        "protected_scripts": options.protected_scripts,
    }


def _budgets(texts: Sequence[str]) -> dict[str, int]:
    budgets = {}
    for text in texts:
        code, _, number = text.partition("=")
        if not code or not number.isdecimal():
            raise UsageError(f"cannot read the budget {text!r}; it looks like th=1536")
        budgets[code] = int(number)
    return budgets


def texts_by_language(
    paths: Sequence[str], *, convert: Callable[[str], str] = lambda text: text
) -> dict[str, list[str]]:
    """Normalised texts of files, by language: labelled, named after the file, or identified.

    `convert` is applied to each text before it is normalised.
    """
    from seallm_jax.core.schema import CorpusConfig
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.corpus.reader import find_files, read_documents
    from seallm_jax.corpus.repair import repair_text

    texts: dict[str, list[str]] = {}
    for path in paths:
        for file in find_files(path):
            for record in read_documents(file, CorpusConfig()):
                if isinstance(record, Document) and (text := repair_text(convert(record.text))):
                    texts.setdefault(record.language or identify_language(text) or "?", []).append(text)
    if not texts:
        raise SeallmError(f"no text in {', '.join(paths)}")
    return texts


def _learn(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.tokenization.learn import learn_tokenizer

    texts = [text for group in texts_by_language(options.corpus).values() for text in group]
    tokenizer = learn_tokenizer(texts, options.size, progress=Progress())
    tokenizer.save(options.output)
    print(f"{options.output}: {tokenizer.size:,} tokens")
    return {"output": options.output, "size": tokenizer.size, "digest": tokenizer.digest}


def _extend(options: argparse.Namespace) -> dict[str, Any]:
    return _extend_with(options, options.donor)


def _merge(options: argparse.Namespace) -> dict[str, Any]:
    return _extend_with(options, options.models)


def _extend_with(options: argparse.Namespace, donors: Sequence[str]) -> dict[str, Any]:
    from seallm_jax.tokenization.donor import read_donor
    from seallm_jax.tokenization.extend import extend_tokenizer
    from seallm_jax.tokenization.tokenizer import Tokenizer

    if options.size is None and not options.budget:
        raise UsageError("give --size=N, or a --budget for each language")
    extension = extend_tokenizer(
        Tokenizer.load(options.tokenizer),
        texts_by_language(options.corpus) if options.corpus else {},
        options.size,
        method=options.method,
        donors=[read_donor(path) for path in donors],
        **extension_options(options),
        progress=Progress(),
    )
    extension.save(options.output)
    languages = extension.tokens_by_language()
    print(f"{options.output}: {extension.base_size:,} + {len(extension.new_pieces):,} tokens")
    if languages:
        print("new tokens: " + ", ".join(f"{code} {number:,}" for code, number in languages.items()))
    return {
        "output": options.output,
        "method": extension.method,
        "size": extension.tokenizer.size,
        "new_tokens": len(extension.new_pieces),
        "new_tokens_by_language": languages,
        "digest": extension.tokenizer.digest,
    }


def _report(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.corpus.parallel import read_parallel
    from seallm_jax.tokenization.fertility_plot import plot_fertility
    from seallm_jax.tokenization.tokenizer import Tokenizer
    from seallm_jax.tokenization.vocabulary_report import vocabulary_report

    extended = Tokenizer.load(options.tokenizer)
    base = Tokenizer.load(options.base) if options.base else extended
    parallel = read_parallel(pathlib.Path(options.parallel)) if options.parallel else None
    report = vocabulary_report(base, extended, texts_by_language(options.corpus), parallel)
    show_report(report)
    if options.plot:
        plot_fertility(report["fertility"], options.plot)
    return report


def show_report(report: dict[str, Any]) -> None:
    """Prints what `vocabulary_report` found."""
    base, extended = report["base"], report["extended"]
    title = f"Vocabulary: {base['size']:,} -> {extended['size']:,} tokens; fertility on held-out text"
    print_table(title, [_fertility_columns(row) for row in report["fertility"]])
    unreachable = f"{base['unreachable']:,} -> {extended['unreachable']:,}"
    unchanged = report["english_unchanged"]
    print(f"tokens that no text reaches: {unreachable}", end="")
    print(f"; English lines with the same ids: {unchanged:.2%}" if unchanged is not None else "")


def _fertility_columns(row: dict[str, Any]) -> dict[str, Any]:
    measured = bool(row["bytes"])
    return {
        "language": row["language"],
        "name": row["name"],
        "tokens/char": row["base_tokens_per_character"] if measured else None,
        "after": row["extended_tokens_per_character"] if measured else None,
        "tokens/byte": row["base_tokens_per_byte"] if measured else None,
        "after ": row["extended_tokens_per_byte"] if measured else None,
        "fewer": f"{1 / row['ratio']:.2f}x" if row["ratio"] else "",
        "vs English": row["base_relative"],
        "after  ": row["extended_relative"],
        "byte tokens": f"{row['base_byte_share']:.1%}" if measured else "",
        "after   ": f"{row['extended_byte_share']:.1%}" if measured else "",
        "Renyi": row["base_renyi_efficiency"] if measured else None,
        "after    ": row["extended_renyi_efficiency"] if measured else None,
        "unchanged": f"{row['unchanged']:.1%}" if row["unchanged"] is not None else "",
    }


def _init(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.cli.vocab import extend_parameters
    from seallm_jax.interop.huggingface import export_model, import_model
    from seallm_jax.tokenization.embeddings import RowInitializer
    from seallm_jax.tokenization.extension import Extension

    progress = Progress()
    extension = Extension.load(options.tokenizer)
    imported = import_model(options.model, progress=progress)
    base = load_base_tokenizer(imported.tokenizer_path, imported.config)
    if base.digest != extension.base_digest:
        raise SeallmError(f"{options.tokenizer} extends another tokenizer than that of {options.model}")
    texts = [text for group in texts_by_language(options.corpus).values() for text in group] if options.corpus else []
    output = options.initialization if options.output_initialization == "same" else options.output_initialization
    initializers = {
        method: RowInitializer(extension, method, base=base, texts=texts, seed=options.seed, progress=progress)
        for method in {options.initialization, output}
    }
    model, parameters = extend_parameters(
        imported.parameters,
        imported.config,
        extension.tokenizer.size,
        initializers[options.initialization],
        initializers[output],
        tensor=1,
    )
    summary = export_model(
        parameters,
        model,
        options.tokenizer,
        options.output,
        base_directory=imported.tokenizer_path,
        progress=progress,
    )
    print(f"{options.output}: {extension.base_size:,} + {len(extension.new_pieces):,} tokens")
    return dataclasses.asdict(summary)


def _add(commands, name: str, help: str, example: str) -> argparse.ArgumentParser:
    return add_command(commands, name, help=help, description=help, example=f"seallm vocab {name} {example}")


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, metavar="DIR_OR_FILE", help="directory or tokenizer file")


def _add_corpus(parser: argparse.ArgumentParser, *, required: bool = True, help: str = "") -> None:
    help = help or ".jsonl, .parquet or .txt files"
    parser.add_argument("--corpus", required=required, nargs="+", default=[], metavar="PATH", help=help)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="DIR", help="directory that AutoTokenizer loads")
