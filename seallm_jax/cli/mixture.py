"""`seallm mixture`: the curriculum of each training stage, before a step is trained on it."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.lineage import TRAINING_STAGES, stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.cli.training import compile_curriculum
from seallm_jax.core.config import to_dict


def add_parser(subparsers) -> argparse.ArgumentParser:
    return add_stage_command(
        subparsers,
        STAGE,
        show,
        help="the curriculum: tokens, share and epochs by source and stage; a plot",
        description="Compiles the curriculum of every training stage, prints tokens, share and epochs of each "
        "source, and draws the shares over the run. Sources that would repeat too often are named.",
        example="seallm mixture --config=configs/quickstart.py --workdir=runs/mine",
    )


def show(outcome: dict[str, Any]) -> None:
    """Prints a table for each training stage, one column a curriculum stage, and the notes."""
    for name, records in outcome["tables"].items():
        print_table(f"Curriculum of {name}", share_table(records))
        for record in records:
            if record["notes"]:
                print(f"  {record['stage']}: {record['notes']}")


def share_table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a source: its share of each curriculum stage, tokens and epochs in all."""
    stages = list(dict.fromkeys(record["stage"] for record in records))
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(
            record["source"], {"source": record["source"]} | dict.fromkeys(stages, "") | {"tokens": 0, "epochs": 0.0}
        )
        row[record["stage"]] = f"{record['share']:.1%}"
        row["tokens"] += record["tokens"]
        row["epochs"] = record["epochs_total"]
    return list(rows.values())


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.data.plot import plot_mixture

    digest = stage_model(context, "vocab").load_tokenizer().digest
    tables, digests = {}, {}
    for name in TRAINING_STAGES:
        train = getattr(context.config, name)
        if train is None:
            continue
        _, curriculum = compile_curriculum(context, name, train, context.directory.stage("pack"), digest)
        plot_mixture(curriculum, directory / f"{name}.svg")
        plot_mixture(curriculum, directory / f"{name}.png")
        tables[name] = curriculum.table()
        digests[name] = curriculum.digest
    return {"tables": tables, "digests": digests}


STAGE = Stage(
    name="mixture",
    inputs=lambda context: {"tokens": context.manifest("pack").digest},
    section=lambda config: {
        name: [to_dict(stage) for stage in getattr(config, name).curriculum]
        + [{"batch_rows": getattr(config, name).batch_rows}]
        for name in TRAINING_STAGES
        if getattr(config, name) is not None
    },
    compute=_compute,
)
