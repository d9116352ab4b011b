"""The training part of the report: a summary row and curves a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.core.languages import language_name

if TYPE_CHECKING:
    from seallm_jax.evaluation.report import ReportData

# objective metrics worth a panel; the others are in metrics.jsonl
METRIC_PANELS = {"rewards/accuracies": "reward accuracy", "rewards/margins": "reward margin"}


def training_sections(data: ReportData) -> dict[str, Any] | None:
    """{summary: rows, stages: [{name, images, language_images}]}, or None when nothing was trained."""
    stages = {stage: lines for stage, lines in (data.training or {}).items() if lines}
    if not stages:
        return None
    from seallm_jax.evaluation.plots import curves_plot, language_curves_plot
    from seallm_jax.evaluation.report import picture

    entries = []
    for stage, lines in stages.items():
        panels = {"loss": _curve(lines, "loss"), "learning rate": _curve(lines, "learning_rate")}
        panels |= {title: _curve(lines, key, within="metrics") for key, title in METRIC_PANELS.items()}
        panels = {title: curve for title, curve in panels.items() if curve[0]}
        codes = sorted({code for line in lines for code in line.get("loss_by_language") or {}}, key=language_name)
        curves = {code: _curve(lines, code, within="loss_by_language") for code in codes}
        curves = {code: curve for code, curve in curves.items() if curve[0]}
        entries.append(
            {
                "name": stage,
                "images": picture(curves_plot(panels)) if panels else None,
                "language_images": picture(language_curves_plot(curves)) if len(curves) > 1 else None,
            }
        )
    return {"summary": [_summary(stage, lines) for stage, lines in stages.items()], "stages": entries}


def _summary(stage: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = lines[-1]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    seconds, tokens = last.get("seconds"), last.get("tokens")
    return {
        "stage": stage,
        "steps": last.get("step"),
        "tokens": tokens,
        "first loss": losses[0] if losses else None,
        "last loss": losses[-1] if losses else None,
        "tokens per second": tokens / seconds if tokens and seconds else None,
        "updates skipped": last.get("skipped_updates"),
        "time": seconds,
    }


def _curve(lines: Sequence[Mapping[str, Any]], key: str, within: str | None = None) -> tuple[list[float], list[float]]:
    """Tokens and values of the lines that have the value."""
    points = [(line.get("tokens") or 0, ((line.get(within) or {}) if within else line).get(key)) for line in lines]
    present = [(tokens, value) for tokens, value in points if value is not None]
    return [tokens for tokens, _ in present], [value for _, value in present]
