"""The mixture over time and how often each source is repeated, as one picture."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import language_name
from seallm_jax.core.paths import atomic_file
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURED = 20  # sources with a colour of their own; the others share grey
PALETTE = (
    *("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#9c6b4e", "#ff8ab7", "#97bbf5", "#4d7a1f"),
    *("#22437a", "#f5d77a", "#b0392b", "#a8dfb0", "#d9c2fa", "#1f7a6c", "#dcc3b2", "#a8447a", "#5fb0d9", "#8a8a2a"),
)
FEWEST_BARS = 8  # room for, so that two sources do not fill the page
GREY = "#b5b5b5"
INK = "#333333"


def plot_mixture(curriculum: Curriculum, path: pathlib.Path) -> None:
    """Draws the shares of the sources over the tokens of the run, and beside it each source's tokens and epochs.

    The bars are in the order of the bands and name them. The largest sources have colours; of more than 20, the rest
    share grey.

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

    served = curriculum.served(curriculum.total_rows)
    weighted = (curriculum.schedule.weights > 0).any(axis=0)
    drawn = np.flatnonzero(weighted)
    order = drawn[np.argsort(-curriculum.schedule.quotas(curriculum.total_rows)[drawn], kind="stable")]
    style: dict[Any, Any] = {
        "font.size": 10,
        "svg.hashsalt": curriculum.digest,
        "svg.fonttype": "path",
        "hatch.linewidth": 0.6,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, max(5.2, 1.6 + 0.24 * len(order))), dpi=100, layout="constrained")
        shares, bars = figure.subplots(1, 2, width_ratios=(1.9, 1))
        colours = {index: PALETTE[n] if n < COLOURED else GREY for n, index in enumerate(order.tolist())}
        _draw_shares(shares, curriculum, order, colours)
        _draw_epochs(bars, curriculum, order, colours, served)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def _draw_shares(axes: Axes, curriculum: Curriculum, order: np.ndarray, colours: dict[int, str]) -> None:
    total = curriculum.total_tokens
    tokens, shares = _points(curriculum)
    bands = shares[:, order[::-1]].T  # the largest source on top
    tops = np.cumsum(bands, axis=0)
    for index, low, high in zip(order[::-1].tolist(), tops - bands, tops, strict=True):
        axes.fill_between(
            tokens,
            low,
            high,
            facecolor=colours[index],
            edgecolor=colours[index] if colours[index] == GREY else "white",
            linewidth=0.4,
            hatch=_hatch(curriculum.sources[index]),
        )
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


def _draw_epochs(
    axes: Axes, curriculum: Curriculum, order: np.ndarray, colours: dict[int, str], served: np.ndarray
) -> None:
    epochs = [served[index] / curriculum.sources[index].rows for index in order]
    longest = float(max(epochs))
    places = range(len(order))
    for place, index, value in zip(places, order.tolist(), epochs, strict=True):
        source = curriculum.sources[index]
        axes.barh(
            place, value, height=0.74, facecolor=colours[index], edgecolor="white", linewidth=0.4, hatch=_hatch(source)
        )
        tokens = format_tokens(int(served[index]) * curriculum.sequence_length)
        axes.text(value + 0.015 * longest, place, f"{value:.3g}× · {tokens}", va="center", fontsize=8.5, color=INK)
    kinds = {curriculum.sources[index].kind for index in order}
    axes.set_yticks(places, [_label(curriculum.sources[index], kinds) for index in order], fontsize=9)
    axes.set_ylim(max(len(order), FEWEST_BARS) - 0.4, -0.6)
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


def _label(source: Source, kinds: set[str]) -> str:
    name = language_name(source.language)
    name = name if name == source.language else f"{name} ({source.language})"
    return name if len(kinds) == 1 else f"{name} {source.kind}"


def _hatch(source: Source) -> str:
    return {"text": "", "instructions": "///"}.get(source.kind, "...")
