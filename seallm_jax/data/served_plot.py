"""What a run has served beside what was planned, as one picture."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.plot import FEWEST_BARS, INK, format_tokens
from seallm_jax.data.served_record import ServedRecord
from seallm_jax.data.source_group import SourceGroup, source_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOWS = 48  # points of a line: the shares of as many parts of the run


def plot_served(curriculum: Curriculum, record: ServedRecord, path: pathlib.Path) -> None:
    """Draws the shares of the sources over the run, planned (lines) and served (dots), and beside it their tokens.

    The bars on the right name the sources by colour: full where tokens were served, a frame as long as the budget.

    Args:
      curriculum: the plan.
      record: what the run has recorded so far.
      path: a .png or .svg file, about 1200 pixels wide.

    Raises:
      SeallmError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise SeallmError(f"cannot draw what was served as {path.name}; use a name that ends in .png or .svg")
    import matplotlib
    from matplotlib.figure import Figure

    groups = source_groups(curriculum)
    style: dict[Any, Any] = {"font.size": 10, "svg.hashsalt": curriculum.digest, "svg.fonttype": "path"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, max(5.2, 1.6 + 0.24 * len(groups))), dpi=100, layout="constrained")
        shares, bars = figure.subplots(1, 2, width_ratios=(1.9, 1))
        _draw_shares(shares, curriculum, record, groups)
        _draw_tokens(bars, curriculum, record, groups)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def windows(record: ServedRecord, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Shares that sources have served in parts of the run between recorded points, at most 48 parts.

    Returns:
      int64 [W + 1] rows where the parts begin and end, and float [W], shares.
    """
    wanted = np.linspace(0, record.rows[-1], WINDOWS + 1)[1:]
    points = np.unique(np.searchsorted(record.rows, wanted))
    edges = np.concatenate([[0], record.rows[points]])
    counts = np.concatenate([[0], record.of_sources(names)[points]])
    return edges, np.diff(counts) / np.diff(edges)


def _draw_shares(axes: Axes, curriculum: Curriculum, record: ServedRecord, groups: list[SourceGroup]) -> None:
    from matplotlib.lines import Line2D

    length, schedule = curriculum.sequence_length, curriculum.schedule
    starts = np.repeat(schedule.starts, 2)[1:-1] * length
    for group in reversed(groups):  # the largest source on top
        planned = schedule.weights[:, group.indices].sum(axis=1) / schedule.scale
        style: dict[str, Any] = {"color": group.colour, "linewidth": 1.6}
        axes.plot(starts, np.where(planned > 0, planned, np.nan).repeat(2), **style)
        edges, shares = windows(record, [curriculum.sources[index].name for index in group.indices])
        middles = (edges[1:] + edges[:-1]) / 2 * length
        axes.plot(middles, np.where(shares > 0, shares, np.nan), "o", color=group.colour, markersize=3.5, mew=0)
    for stage in curriculum.stages[1:]:
        axes.axvline(stage.start * length, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axvline(record.rows[-1] * length, color=INK, linewidth=0.8)
    axes.set_xlim(0, max(curriculum.total_tokens, record.rows[-1] * length) * 1.01)
    axes.set_yscale("log")
    share = curriculum.schedule.quotas(curriculum.total_rows) / curriculum.schedule.scale / curriculum.total_rows
    axes.set_ylim(bottom=min(share[group.indices].sum() for group in groups) / 4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.xaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axes.set_xlabel("tokens")
    axes.set_ylabel("share of the rows")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=INK, linewidth=1.6, label="planned"),
        Line2D([], [], color=INK, marker="o", markersize=3.5, linewidth=0, label="served, by parts of the run"),
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def _draw_tokens(axes: Axes, curriculum: Curriculum, record: ServedRecord, groups: list[SourceGroup]) -> None:
    length = curriculum.sequence_length
    budget = curriculum.schedule.quotas(curriculum.total_rows) / curriculum.schedule.scale * length
    due = curriculum.schedule.quotas(min(int(record.rows[-1]), curriculum.total_rows)) / curriculum.schedule.scale
    longest = max(float(budget[group.indices].sum()) for group in groups)
    for place, group in enumerate(groups):
        rows = int(record.of_sources(curriculum.sources[index].name for index in group.indices)[-1])
        whole = float(budget[group.indices].sum())
        axes.barh(place, whole, height=0.74, facecolor="none", edgecolor=group.colour, linewidth=1)
        axes.barh(place, rows * length, height=0.74, facecolor=group.colour)
        text = f"{format_tokens(rows * length)} ({rows - due[group.indices].sum():+.1f} rows)"
        axes.text(max(whole, rows * length) + 0.015 * longest, place, text, va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(groups)), [group.label for group in groups], fontsize=9)
    axes.set_ylim(max(len(groups), FEWEST_BARS) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.55)
    axes.xaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axes.set_title("tokens served (against the plan so far)", fontsize=10, loc="left", color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("tokens; frame: budget")
