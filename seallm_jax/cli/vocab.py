"""`seallm vocab`: extend the base tokenizer and the base model's embeddings to new languages."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli import vocab_commands
from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.vocab_commands import show_report
from seallm_jax.core.config import to_dict
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import UsageError
from seallm_jax.core.paths import file_digest, write_json
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import ModelConfig

if TYPE_CHECKING:
    from seallm_jax.tokenization.embeddings import RowInitializer

FERTILITY_FILE, REPORT_FILE, PLOT_FILE = "fertility.json", "vocabulary.json", "fertility.png"
TEXT_METHODS = ("weighted_mean", "similarity")  # initialisations that read text


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "vocab",
        help="learn, extend and merge tokenizers, initialise embeddings, report fertility",
        description="With --config: the vocabulary stage of a run (extend the base tokenizer, initialise the new "
        "rows of the base model, report fertility). With a sub-command: the same on any tokenizer and"
        " text.",
        example="seallm vocab extend --tokenizer=base/ --corpus km.txt lo.txt --size=16512 --output=extended/",
    )
    add_run_arguments(parser, required=False)
    vocab_commands.add_parsers(parser.add_subparsers(title="sub-commands", metavar="SUBCOMMAND"))
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if not options.config:
        raise UsageError("give --config=FILE for the stage of a run, or a sub-command; see seallm vocab --help")
    outcome = execute(STAGE, make_context(options)).outcome
    show(outcome)
    return outcome


def show(outcome: dict[str, Any]) -> None:
    """Prints the report of the stage."""
    show_report(outcome["report"])


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.corpus.parallel import read_parallel
    from seallm_jax.tokenization.donor import read_donor
    from seallm_jax.tokenization.embeddings import RowInitializer
    from seallm_jax.tokenization.extend import extend_tokenizer
    from seallm_jax.tokenization.fertility_plot import plot_fertility
    from seallm_jax.tokenization.vocabulary_report import vocabulary_report
    from seallm_jax.training.checkpoint import save_parameters

    config, vocab = context.config, context.config.vocab
    base_model = stage_model(context, "base")
    base = base_model.load_tokenizer()
    corpus = context.directory.stage("corpus")
    languages = context.languages.codes
    old = [code for code in languages if code in (config.base.tokenizer_languages or config.base.languages)]
    new = [code for code in languages if code not in old] or list(languages)
    extension = extend_tokenizer(
        base,
        {code: corpus_texts(corpus / "train", code) for code in new},
        vocab.size,
        method=vocab.method,
        donors=[read_donor(pathlib.Path(path).expanduser()) for path in vocab.donors],
        budgets=vocab.budgets,
        alpha=vocab.alpha,
        minimum_frequency=vocab.minimum_frequency,
        protected_texts=(text for code in old if vocab.protect_base for text in corpus_texts(corpus / "train", code)),
        protected_ratio=vocab.protected_ratio,
        protected_scripts=vocab.protected_scripts,
        pad_to=vocab.pad_to,
        strict=vocab.strict,
        maximum_symbols=vocab.maximum_symbols,
        pretokenizer=vocab.pretokenizer,
        progress=context.progress,
    )
    extension.save(directory)

    mesh = build_mesh(config.mesh)
    base_shape, _, parameters = base_model.load_parameters(mesh)
    output = vocab.initialization if vocab.output_initialization == "same" else vocab.output_initialization
    texts = [
        text
        for code in languages
        if {vocab.initialization, output} & set(TEXT_METHODS)
        for text in corpus_texts(corpus / "train", code)
    ]
    initializers = {
        method: RowInitializer(extension, method, base=base, texts=texts, seed=config.seed, progress=context.progress)
        for method in {vocab.initialization, output}
    }
    model, parameters = extend_parameters(
        parameters,
        base_shape,
        extension.tokenizer.size,
        initializers[vocab.initialization],
        initializers[output],
        tensor=mesh.shape["tensor"],
    )
    save_parameters(directory / "checkpoints", parameters, model, tokenizer_digest=extension.tokenizer.digest)

    heldout = {code: list(corpus_texts(corpus / "heldout", code)) for code in languages}
    parallel = read_parallel(resolve_path(config.data.parallel, "parallel"))
    parallel = {code: lines for code, lines in parallel.items() if code in languages}
    report = vocabulary_report(base, extension.tokenizer, heldout, parallel if "en" in parallel else None)
    report["new_tokens_by_language"] = extension.tokens_by_language()
    write_json(directory / FERTILITY_FILE, report["fertility"])
    write_json(directory / REPORT_FILE, report)
    plot_fertility(report["fertility"], directory / PLOT_FILE)
    return {
        "model": dataclasses.asdict(model),
        "base_size": base.size,
        "new_tokens": extension.tokenizer.size - base.size,
        "tokenizer_digest": extension.tokenizer.digest,
        "fertility": report["fertility"],
        "report": report,
    }


def extend_parameters(
    parameters: Any,
    model: ModelConfig,
    size: int,
    embedding: RowInitializer,
    head: RowInitializer,
    *,
    tensor: int,
) -> tuple[ModelConfig, Any]:
    """The shape and the parameters with rows for a vocabulary of `size`, padded for `tensor` shards."""
    import jax
    import numpy as np

    from seallm_jax.core.vocabulary import Vocabulary
    from seallm_jax.models.layout import path_name

    vocabulary = Vocabulary.padded(size, tensor=tensor)
    initializers = {"embedding.kernel": embedding, "head.kernel": head}

    def extended(path, leaf):
        initializer = initializers.get(path_name(path))
        if initializer is None:
            return leaf
        return jax.numpy.asarray(initializer.rows(np.asarray(leaf), padded_size=vocabulary.padded_size))

    model = dataclasses.replace(
        model, vocabulary_size=vocabulary.logical_size, padded_vocabulary_size=vocabulary.padded_size
    )
    return model, jax.tree_util.tree_map_with_path(extended, parameters)


def _inputs(context: Context) -> dict[str, str]:
    donors = [pathlib.Path(path).expanduser() for path in context.config.vocab.donors]
    return {
        "corpus": context.manifest("corpus").digest,
        "base": context.manifest("base").digest,
        "parallel": file_digest(resolve_path(context.config.data.parallel, "parallel")),
    } | {f"donor {number}": file_digest(path) for number, path in enumerate(donors)}


STAGE = Stage(
    name="vocab",
    inputs=_inputs,
    section=lambda config: to_dict(config.vocab),
    compute=_compute,
)
