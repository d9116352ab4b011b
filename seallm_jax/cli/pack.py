"""`seallm pack`: documents, instructions and preferences to packed token shards."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.lineage import TRAINING_STAGES, stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.paths import file_digest
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import RunConfig
from seallm_jax.data import shard_index


def add_parser(subparsers) -> argparse.ArgumentParser:
    return add_stage_command(
        subparsers,
        STAGE,
        show,
        help="tokenize and pack into shards",
        description="Tokenizes documents, instructions and preference pairs with the extended tokenizer and packs"
        " them, best fit, into rows of fixed length: one ArrayRecord file for each kind and language.",
        example="seallm pack --config=configs/quickstart.py --workdir=runs/mine --config.packing.sequence_length=512",
    )


def show(outcome: dict[str, Any]) -> None:
    """Prints the shards."""
    rows = [
        {
            "source": row["source"],
            "documents": row["documents"],
            "rows": row["rows"],
            "learned tokens": row["tokens"],
            "fill": f"{row['fill']:.1%}",
            "truncated": row["truncated"],
            "dropped": ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items()),
        }
        for row in outcome["sources"]
    ]
    print_table("Packed rows", rows)


def wanted_kinds(config: RunConfig) -> set[str]:
    """Kinds of sources that some training stage draws from: text, instructions, preferences."""
    kinds = {"text"}
    for train in (getattr(config, stage) for stage in TRAINING_STAGES):
        if train is None:
            continue
        kinds.add("preferences" if train.objective.name == "dpo" else "text")
        keys = [key for stage in train.curriculum for key in stage.weights]
        if any(key.strip().startswith("instructions") for keys in keys for key in keys.split(",")):
            kinds.add("instructions")
    return kinds


def rows_section(config: RunConfig) -> dict[str, Any]:
    """The part of the packing section that decides what the rows are."""
    return {key: value for key, value in to_dict(config.packing).items() if key != "workers"}


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.corpus.language import identify_language
    from seallm_jax.data.prepare import pack_conversations, pack_preferences
    from seallm_jax.data.text_packing import pack_text
    from seallm_jax.data.text_source import text_sources

    config = context.config
    packing = config.packing
    languages = context.languages
    tokenizer = stage_model(context, "vocab").load_tokenizer()
    common: dict[str, Any] = {"sequence_length": packing.sequence_length, "progress": context.progress}
    kinds = wanted_kinds(config)
    found = text_sources(context.directory.stage("corpus"), languages.codes, packing)
    sources = pack_text(found, tokenizer, directory, packing, seed=config.seed, progress=context.progress)
    if "instructions" in kinds:
        path = resolve_path(config.data.instructions, "instructions")
        anchor = packing.mode == "anchor"
        sources += pack_conversations(
            path, tokenizer, languages, directory, anchor=anchor, identify=identify_language, **common
        )
    if "preferences" in kinds:
        path = resolve_path(config.data.preferences, "preferences")
        sources += pack_preferences(
            path,
            tokenizer,
            languages,
            directory,
            maximum_pairs=packing.maximum_pairs,
            heldout=config.data.preference_holdout,
            seed=config.seed,
            identify=identify_language,
            **common,
        )
    return {"sources": sources}


def _inputs(context: Context) -> dict[str, str]:
    data = context.config.data
    kinds = wanted_kinds(context.config)
    inputs = {"corpus": context.manifest("corpus").digest, "vocab": context.manifest("vocab").digest}
    if "instructions" in kinds:
        inputs["instructions"] = file_digest(resolve_path(data.instructions, "instructions"))
    if "preferences" in kinds:
        inputs["preferences"] = file_digest(resolve_path(data.preferences, "preferences"))
    return inputs


STAGE = Stage(
    name="pack",
    inputs=_inputs,
    section=lambda config: (
        rows_section(config) | {"preference_holdout": config.data.preference_holdout, "format": shard_index.VERSION}
    ),
    compute=_compute,
)
