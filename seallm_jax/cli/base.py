"""The base model: a Hugging Face folder, or a small model trained from scratch that stands in for one."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from seallm_jax.cli.base_tokenizer import load_base_tokenizer
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.pack import rows_section
from seallm_jax.cli.training import train_model, train_section
from seallm_jax.core.config import to_dict
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import file_digest

CARRIED = "huggingface"  # what the base says beside its tensors, for the export


def show(outcome: dict[str, Any]) -> None:
    """Prints what the base model is."""
    if "steps" in outcome:
        print(
            f"base: trained from scratch, {outcome['steps']:,} steps, {outcome['tokens']:,} tokens, "
            f"loss {outcome['first_loss']:.3f} -> {outcome['loss']:.3f}"
        )
    else:
        print(f"base: imported from {outcome['path']}")


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    return _import(context, directory) if context.config.base.path else _train(context, directory)


def _import(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.interop.adapters import load_adapter
    from seallm_jax.interop.huggingface import ModelFiles, import_model, model_folder
    from seallm_jax.models.adapters.parameters import merge_adapter
    from seallm_jax.training.checkpoint import save_parameters
    from seallm_jax.training.state import shardings_of

    path = model_folder(context.config.base.path)
    files = ModelFiles(path)
    tokenizer = load_base_tokenizer(path, files.shape())
    for note in tokenizer.notes:
        context.progress.say(note)
    imported = import_model(path, mesh=build_mesh(context.config.mesh), progress=context.progress)
    parameters = imported.parameters
    if context.config.base.adapter:
        adapter = load_adapter(pathlib.Path(context.config.base.adapter).expanduser(), imported.config)
        adapted = adapter.put_on(parameters, imported.config)
        parameters = merge_adapter(adapted, imported.config, adapter.adapter, shardings=shardings_of(parameters))
    shape = dataclasses.replace(imported.config, vocabulary_size=tokenizer.size)
    tokenizer.save(directory / "tokenizer")
    files.copy_to(directory / CARRIED)
    save_parameters(directory / "checkpoints", parameters, shape, tokenizer_digest=tokenizer.digest)
    return {"path": str(path), "model": dataclasses.asdict(shape), "tokenizer_digest": tokenizer.digest}


def _train(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.data.text_packing import pack_text
    from seallm_jax.data.text_source import text_sources
    from seallm_jax.tokenization.learn import learn_tokenizer
    from seallm_jax.tokenization.tokenizer import Tokenizer

    config = context.config.base
    corpus = context.directory.stage("corpus") / "train"
    languages = [code for code in config.languages if code in context.languages.codes]
    if not languages:
        raise SeallmError(
            f"the corpus has no document in the base languages {', '.join(config.languages)}; it has "
            f"{', '.join(context.languages.codes)}. Name some of these with --config.base.languages=LL, or start from "
            "a model of your own with --config.base.path=FOLDER"
        )
    packing = dataclasses.replace(context.config.packing, bpe_dropout=0.0, quality_bands={}, mixed={})
    seed = context.config.seed

    def prepare() -> None:
        if (directory / "tokenizer").exists():
            tokenizer = Tokenizer.load(directory / "tokenizer")
        else:
            known = [code for code in config.tokenizer_languages if code in context.languages.codes] or languages
            texts = [text for code in known for text in corpus_texts(corpus, code)]
            tokenizer = learn_tokenizer(texts, config.vocabulary_size, seed=seed, progress=context.progress)
            tokenizer.save(directory / "tokenizer")
        sources = [source for source in text_sources(corpus.parent, languages, packing) if source.kind == "text"]
        pack_text(sources, tokenizer, directory / "tokens", packing, seed=seed, progress=context.progress)

    context.first_alone("base: tokenizer and rows", prepare)
    tokenizer = Tokenizer.load(directory / "tokenizer")
    return train_model(
        context,
        "base",
        directory,
        train=config.train,
        shape=dataclasses.replace(config.model, vocabulary_size=tokenizer.size),
        tokenizer=tokenizer,
        shards=directory / "tokens",
        start_from=None,
    )


def _inputs(context: Context) -> dict[str, str]:
    inputs = {"corpus": context.manifest("corpus").digest}
    if context.config.base.path:
        from seallm_jax.interop.hub import model_folder

        inputs["model"] = file_digest(model_folder(context.config.base.path))
    if context.config.base.adapter:
        inputs["adapter"] = file_digest(pathlib.Path(context.config.base.adapter).expanduser())
    return inputs


STAGE = Stage(
    name="base",
    inputs=_inputs,
    section=lambda config: (
        {key: value for key, value in to_dict(config.base).items() if key != "path"}
        | {"packing": rows_section(config), "train": train_section(config.base.train)}
    ),
    compute=_compute,
)
