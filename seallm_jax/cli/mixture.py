"""`seallm mixture`: the curriculum of each training stage, before a step is trained on it and while it is."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli import mixture_search
from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import TRAINING_STAGES, stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.cli.training import compile_curriculum, read_metrics
from seallm_jax.core.config import to_dict
from seallm_jax.core.errors import SeallmError, UsageError

if TYPE_CHECKING:
    from seallm_jax.data.curriculum import Curriculum
    from seallm_jax.data.served_record import ServedRecord

SHOWN = 40  # sources that a table shows one by one


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "mixture",
        help="the curriculum: tokens, share and epochs by source and stage; a plot; a search for weights",
        description="Compiles the curriculum of every training stage, prints tokens, share and epochs of each "
        "source, and draws the shares over the run. Sources that would repeat too often are named. With --from-run, "
        "also what the stages have served so far, as their metrics tell, beside the plan. The sub-command search "
        "trains many small models to propose weights.",
        example="seallm mixture --config=configs/quickstart.py --workdir=runs/mine",
    )
    add_run_arguments(parser, required=False)
    parser.add_argument("--from-run", action="store_true", help="what was served so far, beside the plan")
    mixture_search.add_parser(parser.add_subparsers(title="sub-commands", metavar="SUBCOMMAND"))
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if not options.config:
        raise UsageError("--config=FILE is missing, as --config=configs/quickstart.py")
    context = make_context(options)
    outcome = execute(STAGE, context).outcome
    if not options.from_run:
        show(outcome)
        return outcome
    served = served_so_far(context)
    for name, tables in served.items():
        print_table(f"Served by {name}: {tables['rows']:,} of {tables['budget_rows']:,} rows", tables["sources"])
        print_table("Tokens learned from, by language of the text", tables["languages"])
        print(f"plot: {tables['plot']}")
    return outcome | {"served": served}


def show(outcome: dict[str, Any]) -> None:
    """Prints a table for each training stage, one column a curriculum stage, and the notes."""
    for name, records in outcome["tables"].items():
        print_table(f"Curriculum of {name}", share_table(records))
        for record in records:
            if record["notes"]:
                print(f"  {record['stage']}: {record['notes']}")
        if left_out := outcome.get("left_out", {}).get(name):  # older outcomes do not tell
            more = f" and {len(left_out) - 12} more" if len(left_out) > 12 else ""
            print(f"  not served at all: {', '.join(left_out[:12])}{more}")


def share_table(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a source: its share of each curriculum stage, tokens and epochs in all; of many, the largest."""
    stages = list(dict.fromkeys(record["stage"] for record in records))
    rows: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, float]] = {}
    for record in records:
        row = rows.setdefault(
            record["source"], {"source": record["source"]} | dict.fromkeys(stages, "") | {"tokens": 0, "epochs": 0.0}
        )
        shares.setdefault(record["source"], {})[record["stage"]] = record["share"]
        row[record["stage"]] = f"{record['share']:.1%}"
        row["tokens"] += record["tokens"]
        row["epochs"] = record["epochs_total"]
    kept, rest = largest(list(rows.values()), "tokens")
    if rest:
        total = {stage: sum(shares[row["source"]].get(stage, 0.0) for row in rest) for stage in stages}
        kept.append(
            {"source": f"{len(rest)} others"}
            | {stage: f"{share:.1%}" for stage, share in total.items()}
            | {
                "tokens": sum(row["tokens"] for row in rest),
                "epochs": f"up to {max(row['epochs'] for row in rest):.3g}",
            }
        )
    return kept


def largest(rows: list[dict[str, Any]], key: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The 40 rows with the largest `key`, in their order, and the others."""
    if len(rows) <= SHOWN:
        return rows, []
    chosen = {id(row) for row in sorted(rows, key=lambda row: -row[key])[:SHOWN]}
    return [row for row in rows if id(row) in chosen], [row for row in rows if id(row) not in chosen]


def served_so_far(context: Context) -> dict[str, dict[str, Any]]:
    """Training stage -> what it has served, as its metrics.jsonl tells, beside the plan of the config as it is now.

    Keys: rows, budget_rows, sources and languages (tables), plot. Raises SeallmError where no stage has begun.
    """
    from seallm_jax.data.served_plot import plot_served
    from seallm_jax.data.served_record import ServedRecord

    served = {}
    for name, curriculum in _curricula(context):
        directory = context.directory.stage(name)
        lines = read_metrics(directory) if (directory / "metrics.jsonl").exists() else []
        if not lines:
            continue
        record = ServedRecord.of(lines, f"stage {name!r}")
        path = context.directory.stage(STAGE.name) / f"{name}-served.png"
        plot_served(curriculum, record, path)
        total = sum(record.learned.values())
        served[name] = {
            "rows": int(record.rows[-1]),
            "budget_rows": curriculum.total_rows,
            "sources": served_table(curriculum, record),
            "languages": [
                {"language": code, "tokens": count, "share": f"{count / total:.1%}"}
                for code, count in sorted(record.learned.items(), key=lambda item: -item[1])
            ],
            "plot": str(path),
        }
    if not served:
        raise SeallmError(f"no training stage has written metrics in {context.directory.root}; train first")
    return served


def served_table(curriculum: Curriculum, record: ServedRecord) -> list[dict[str, Any]]:
    """One row a source that is planned or was served: rows so far as planned and as served, share, epochs, budget."""
    now = min(int(record.rows[-1]), curriculum.total_rows)
    due = curriculum.schedule.quotas(now) / curriculum.schedule.scale
    budget = curriculum.schedule.quotas(curriculum.total_rows) / curriculum.schedule.scale
    sizes = {source.name: source.rows for source in curriculum.sources}
    planned = dict(zip(sizes, zip(due.tolist(), budget.tolist(), strict=True), strict=True))
    rows = []
    for name in dict.fromkeys([*sizes, *record.by_source]):
        count = int(record.of_sources([name])[-1])
        so_far, whole = planned.get(name, (0.0, 0.0))
        if count or whole:
            rows.append(_served_row(name, so_far, count, whole, record.rows[-1], sizes.get(name, 0)))
    kept, rest = largest(rows, "budget rows")
    if rest:
        so_far, count, whole = (sum(row[key] for row in rest) for key in ("planned rows", "served rows", "budget rows"))
        size = sum(sizes.get(row["source"], 0) for row in rest)
        kept.append(_served_row(f"{len(rest)} others", so_far, count, whole, record.rows[-1], size))
    return kept


def _served_row(name: str, so_far: float, count: int, whole: float, total: int, size: int) -> dict[str, Any]:
    return {
        "source": name,
        "planned rows": round(so_far, 1),
        "served rows": count,
        "difference": round(count - so_far, 1),
        "share": f"{count / total:.2%}",
        "epochs": count / size if size else None,
        "budget rows": round(whole),
    }


def never_served(curriculum: Curriculum) -> list[str]:
    """The sources with rows that the curriculum never serves; kind/* where that is all of a kind."""
    counts = curriculum.served(curriculum.total_rows).tolist()
    filled = [(source, rows) for source, rows in zip(curriculum.sources, counts, strict=True) if source.rows]
    served_kinds = {source.kind for source, rows in filled if rows}
    names = [source.name if source.kind in served_kinds else f"{source.kind}/*" for source, rows in filled if not rows]
    return list(dict.fromkeys(names))


def _curricula(context: Context) -> list[tuple[str, Curriculum]]:
    """The training stages of the config and their compiled curricula."""
    digest = stage_model(context, "vocab").load_tokenizer().digest
    found = []
    for name in TRAINING_STAGES:
        train = getattr(context.config, name)
        if train is not None:
            shards = context.directory.stage("pack")
            found.append((name, compile_curriculum(context, name, train, shards, digest)[1]))
    return found


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.data.plot import plot_mixture

    tables, left_out, digests = {}, {}, {}
    for name, curriculum in _curricula(context):
        plot_mixture(curriculum, directory / f"{name}.svg")
        plot_mixture(curriculum, directory / f"{name}.png")
        tables[name] = curriculum.table()
        left_out[name] = never_served(curriculum)
        digests[name] = curriculum.digest
    return {"tables": tables, "left_out": left_out, "digests": digests}


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
