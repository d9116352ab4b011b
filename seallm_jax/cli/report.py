"""`seallm report`: one self-contained HTML page about a run."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.lineage import TRAINING_STAGES
from seallm_jax.cli.training import read_metrics
from seallm_jax.core.config import to_dict
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import RUN_STAGE_DIRECTORIES, value_digest
from seallm_jax.corpus.report import CorpusReport


def add_parser(subparsers) -> argparse.ArgumentParser:
    return add_stage_command(
        subparsers,
        STAGE,
        show,
        help="one self-contained HTML page about a run",
        description="Tables and plots of all finished stages and generations by language, in one page without network.",
        example="seallm report --config=configs/quickstart.py --workdir=runs/mine",
    )


def show(outcome: dict[str, Any]) -> None:
    """Prints where the page is."""
    print(f"report: {outcome['path']}")


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.evaluation.report import ReportData, build_report

    manifests = _finished(context)
    outcomes = {stage: manifest.outcome for stage, manifest in manifests.items()}
    evaluation = outcomes.get("evaluate", {})
    corpus = CorpusReport.from_json(outcomes["corpus"]) if "corpus" in outcomes else None
    data = ReportData(
        name=context.config.name,
        date=max((manifest.finished for manifest in manifests.values()), default=None),
        config_digest=value_digest(to_dict(context.config))[:12],
        config=to_dict(context.config),
        versions=next(reversed(manifests.values())).versions if manifests else None,
        seconds={stage: manifest.seconds for stage, manifest in manifests.items()},
        command=f"seallm run {context.command}",
        corpus=corpus.table() if corpus else None,
        dropped=corpus.dropped_table() if corpus else None,
        fertility=outcomes.get("vocab", {}).get("fertility"),
        mixture=outcomes["mixture"]["tables"].get("pretrain") if "mixture" in outcomes else None,
        mixture_plot=_existing(context.directory.stage("mixture") / "pretrain.svg"),
        training={
            stage: read_metrics(context.directory.stage(stage))
            for stage in ("base", *TRAINING_STAGES)
            if "steps" in outcomes.get(stage, {})
        },
        bits_per_byte=evaluation.get("bits_per_byte"),
        choices=evaluation.get("choices"),
        preferences=evaluation.get("preferences"),
        generations=outcomes.get("generate", {}).get("generations"),
        export=outcomes.get("export"),
    )
    return {"path": str(build_report(data, directory))}


def _finished(context: Context) -> dict[str, Manifest]:
    """Manifests of the stages that have finished, in order."""
    found = {stage: Manifest.read(context.directory.stage(stage)) for stage in RUN_STAGE_DIRECTORIES}
    return {stage: manifest for stage, manifest in found.items() if manifest is not None and stage != "report"}


def _existing(path: pathlib.Path) -> pathlib.Path | None:
    return path if path.exists() else None


STAGE = Stage(
    name="report",
    inputs=lambda context: {stage: manifest.digest for stage, manifest in _finished(context).items()},
    section=lambda config: {},
    compute=_compute,
)
