"""The plots of the report as SVG text. Labels are Latin only: English names of languages, codes where there is none."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from seallm_jax.core.languages import language_name

WIDTH = 10.0  # inches; the page scales it
MAXIMUM_POINTS = 300  # per curve; longer ones are averaged
Curve = tuple[Sequence[float], Sequence[float]]

# Colours of text, lines and data; SHADES go from the first stage to the last.
INK, MUTED, GRID, ACCENT = "#1f2933", "#6b7683", "#e3e7eb", "#0b7a75"
SHADES = ("#a8b2bd", "#8fb8de", "#4f8fc0", "#d9a441", ACCENT)
DARK = {
    INK: "#e4e8ec",
    MUTED: "#98a3af",
    GRID: "#333b45",
    ACCENT: "#3fc1b5",
    "#a8b2bd": "#7c8794",
    "#8fb8de": "#47719a",
    "#4f8fc0": "#6aa5d6",
    "#d9a441": "#e0b45c",
}


def darken(svg: str) -> str:
    """The same plot for a dark page."""
    return re.sub("|".join(DARK), lambda match: DARK[match.group()], svg)


def bits_plot(stages: Mapping[str, Mapping[str, float]], order: Sequence[str]) -> str:
    """Bits per byte, one dot a stage, languages in `order`. `stages`: stage -> language -> bits per byte."""
    order = list(order)[::-1]  # the first row is at the top
    series = {stage: [values.get(code) for code in order] for stage, values in stages.items()}
    return _render(_height(len(order)), lambda figure: _dots(figure, order, series, "bits per byte"))


def fertility_plot(values: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Dots per language, base and extended tokenizer. `values`: series name -> language -> number named `label`."""
    first = list(values.values())[0]
    order = sorted(first, key=lambda code: first[code])
    series = {name: [column.get(code) for code in order] for name, column in values.items()}
    return _render(_height(len(order)), lambda figure: _dots(figure, order, series, label))


def accuracy_plot(stages: Mapping[str, Mapping[str, tuple[float, float | None]]], chance: Mapping[str, float]) -> str:
    """Accuracy by group with bars of one standard error and a tick at the level of guessing.

    `stages`: stage -> group -> (accuracy, standard error); `chance`: group -> accuracy of guessing. A group is a
    language code, or a task and a code with a space between.
    """
    order = list(dict.fromkeys(group for values in stages.values() for group in values))[::-1]

    def draw(figure: Figure) -> None:
        series = {stage: [values.get(group, (None, None))[0] for group in order] for stage, values in stages.items()}
        errors = {stage: [values.get(group, (0, None))[1] or 0 for group in order] for stage, values in stages.items()}
        axes = _dots(figure, order, series, "accuracy, %", errors=errors, scale=100)
        ticks = [(chance[group] * 100, row) for row, group in enumerate(order) if group in chance]
        if ticks:
            x, y = zip(*ticks, strict=True)
            axes.scatter(x, y, marker="|", s=260, color=INK, linewidths=1.2, label="guessing", zorder=2)
            _legend(axes)

    return _render(_height(len(order)), draw)


def curves_plot(panels: Mapping[str, Curve], *, log_scale: Sequence[str] = ()) -> str:
    """Curves over millions (or thousands) of tokens side by side. `panels`: title -> (tokens, values)."""

    def draw(figure: Figure) -> None:
        for axes, (title, curve) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _curve(axes, curve, title)
            axes.set_xlabel(_unit(curve[0])[1])
            if title in log_scale:
                axes.set_yscale("log")

    return _render(2.9, draw)


def language_curves_plot(curves: Mapping[str, Curve]) -> str:
    """Loss by language as small multiples with shared axes. `curves`: language -> (tokens, losses)."""
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        cells = [axes for row in grid for axes in row]
        for index, axes in enumerate(cells):
            if index >= len(curves):
                axes.set_visible(False)
        for index, (code, curve) in enumerate(curves.items()):
            axes = cells[index]
            _curve(axes, curve, f"{language_name(code)}  {_last(curve[1])}")
            if index + columns >= len(curves):
                axes.set_xlabel(_unit(curve[0])[1])
                axes.tick_params(labelbottom=True)

    return _render(0.7 + 1.35 * rows, draw)


def _render(height: float, draw: Callable[[Figure], Any]) -> str:
    settings: Any = {
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a stage may be called $x$
        "svg.hashsalt": "seallm",  # the same numbers give the same file
    }
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        file = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return file.getvalue().decode("utf-8")


def _height(rows: int) -> float:
    return 0.95 + 0.27 * max(rows, 2)


def _dots(
    figure: Figure,
    order: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    label: str,
    *,
    errors: Mapping[str, Sequence[float]] | None = None,
    scale: float = 1.0,
) -> Axes:
    """One row a language with a dot a series and a line from the smallest to the largest."""
    axes = figure.subplots()
    rows = range(len(order))
    for row in rows:
        present = [values[row] * scale for values in series.values() if values[row] is not None]  # type: ignore[operator]
        if present:
            axes.hlines(row, min(present), max(present), color=GRID, linewidth=3, zorder=1)
    colours = _shades(len(series))
    for index, (name, values) in enumerate(series.items()):
        points = [(value * scale, row) for row, value in enumerate(values) if value is not None]
        x, y = [point[0] for point in points], [float(point[1]) for point in points]
        if errors is not None:
            # a little apart, so that the bars of two stages do not hide each other
            y = [row + 0.14 * (index - (len(series) - 1) / 2) for row in y]
            widths = [errors[name][row] * scale for _, row in points]
            axes.errorbar(x, y, xerr=widths, fmt="none", ecolor=colours[index], elinewidth=1, zorder=2)
        axes.scatter(x, y, s=34, color=colours[index], label=name, zorder=3 + index)
    axes.set_yticks(list(rows), [_row_label(group) for group in order], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    _legend(axes)
    return axes


def _row_label(group: str) -> str:
    task, _, code = group.rpartition(" ")
    return " ".join(filter(None, (task, language_name(code))))


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=6,
        frameon=False,
        labelcolor=INK,
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0.1,
        markerscale=0.9,
    )


def _shades(count: int) -> list[str]:
    """`count` colours that always begin and end with the first and the last shade."""
    if count == 1:
        return [SHADES[-1]]
    if count > len(SHADES):
        return [SHADES[min(i, len(SHADES) - 2)] for i in range(count - 1)] + [SHADES[-1]]
    return [*SHADES[: count - 1], SHADES[-1]]


def _curve(axes: Axes, curve: Curve, title: str) -> None:
    x, y = _thin(curve)
    divisor = _unit(curve[0])[0]
    axes.plot([value / divisor for value in x], y, color=ACCENT, linewidth=1.3, marker="o" if len(x) == 1 else "")
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelsize=8)


def _unit(tokens: Sequence[float]) -> tuple[float, str]:
    largest = max(tokens, default=0)
    for divisor, name in ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens")):
        if largest >= divisor:
            return divisor, name
    return 1.0, "tokens"


def _thin(curve: Curve) -> Curve:
    """Means over blocks when there are more points than the eye can tell apart."""
    x, y = curve
    block = math.ceil(len(x) / MAXIMUM_POINTS)
    if block <= 1:
        return x, y
    starts = range(0, len(x), block)
    return [_mean(x[i : i + block]) for i in starts], [_mean(y[i : i + block]) for i in starts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _last(values: Sequence[float]) -> str:
    return f"{values[-1]:.2f}" if values else ""
