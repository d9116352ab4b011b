"""The mixture over time and how often each source is repeated, as one picture."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source_group import GREY, SourceGroup, source_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_BARS = 8  # room for, so that two sources do not fill the page
INK = "#333333"


def plot_mixture(curriculum: Curriculum, path: pathlib.Path) -> None:
    """Draws the shares of the sources over the tokens of the run, and beside it each source's tokens and epochs.

    The bars are in the order of the areas and name them. The largest sources have colours; of more than 20, the rest
    share grey, and of more than 40, one bar.

    Args:
      curriculum: what to draw.
      path: a .png or .svg file, about 1200 pixels wide.

    Raises:
      SeallmError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise SeallmError(f"cannot draw the mixture as {path.name}; use a name that ends in .png or .svg")
    import matplotlib
    from matplotlib.figure import Figure

    groups = source_groups(curriculum)
    style: dict[Any, Any] = {
        "font.size": 10,
        "svg.hashsalt": curriculum.digest,
        "svg.fonttype": "path",
        "hatch.linewidth": 0.6,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, max(5.2, 1.6 + 0.24 * len(groups))), dpi=100, layout="constrained")
        shares, bars = figure.subplots(1, 2, width_ratios=(1.9, 1))
        _draw_shares(shares, curriculum, groups)
        _draw_epochs(bars, curriculum, groups)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def _draw_shares(axes: Axes, curriculum: Curriculum, groups: list[SourceGroup]) -> None:
    total = curriculum.total_tokens
    tokens, shares = _points(curriculum)
    bottom = np.zeros(len(tokens))
    for group in reversed(groups):  # the largest source on top
        top = bottom + shares[:, group.indices].sum(axis=1)
        edge = GREY if group.colour == GREY else "white"
        style: dict[str, Any] = {"facecolor": group.colour, "edgecolor": edge, "linewidth": 0.4, "hatch": group.hatch}
        axes.fill_between(tokens, bottom, top, **style)
        bottom = top
    for stage in curriculum.stages:
        if stage.stop == stage.start:
            continue
        start, stop = stage.start * curriculum.sequence_length, stage.stop * curriculum.sequence_length
        if stage.start:
            axes.axvline(start, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        narrow = (stop - start) / total < 0.012 * len(stage.name) + 0.01
        axes.text(
            (start + stop) / 2,
            1.012,
            stage.name,
            ha="left" if narrow else "center",
            va="bottom",
            rotation=30 if narrow else 0,
            rotation_mode="anchor",
            color=INK,
        )
    axes.set_xlim(0, total)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("tokens")
    axes.set_ylabel("share of each batch")
    axes.tick_params(color=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _points(curriculum: Curriculum) -> tuple[np.ndarray, np.ndarray]:
    """float [P] tokens and float [P, K] shares: both ends of each segment, only the middle of a very short one."""
    schedule = curriculum.schedule
    rows, segments = [], []
    for segment, (start, stop) in enumerate(zip(schedule.starts[:-1], schedule.starts[1:], strict=True)):
        at_edge = start == 0 or stop == schedule.rows
        places = [start, stop] if at_edge or stop - start > schedule.rows / 100 else [(start + stop) / 2]
        rows += places
        segments += [segment] * len(places)
    return np.array(rows) * curriculum.sequence_length, schedule.weights[segments] / schedule.scale


def _draw_epochs(axes: Axes, curriculum: Curriculum, groups: list[SourceGroup]) -> None:
    rows = np.array([source.rows for source in curriculum.sources])
    served = curriculum.served(curriculum.total_rows)
    epochs = [served[group.indices].sum() / rows[group.indices].sum() for group in groups]
    longest = float(max(epochs))
    for place, (group, value) in enumerate(zip(groups, epochs, strict=True)):
        axes.barh(
            place, value, height=0.74, facecolor=group.colour, edgecolor="white", linewidth=0.4, hatch=group.hatch
        )
        text = f"{value:.3g}× · {format_tokens(int(served[group.indices].sum()) * curriculum.sequence_length)}"
        if len(group.indices) > 1:
            text += f" (up to {(served / np.maximum(rows, 1))[group.indices].max():.3g}×)"
        axes.text(value + 0.015 * longest, place, text, va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(groups)), [group.label for group in groups], fontsize=9)
    axes.set_ylim(max(len(groups), FEWEST_BARS) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.45)
    axes.set_title("epochs · tokens", fontsize=10, loc="left", color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("times each source is read")


def format_tokens(count: float) -> str:
    """A number of tokens in three digits, as 1.25M."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.0f}"
