"""What a search for a mixture has found, as one picture."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.core.paths import atomic_file
from seallm_jax.data.plot import FEWEST_BARS, INK
from seallm_jax.data.source_group import GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROPOSED = PALETTE[2]
MARKS = {"temperature": "s", "proportional": "D", "uniform": "^"}


def plot_search(result: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the shares, the losses by language, and what predictions of left-out mixtures are worth.

    Args:
      result: what `seallm mixture search` writes to proposal.json.
      path: a .png file, about 1600 pixels wide.
    """
    import matplotlib
    from matplotlib.figure import Figure

    count = max(len(result["sources"]), len(result["predicted"]), FEWEST_BARS)
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(16, max(5.2, 1.8 + 0.26 * count)), dpi=100, layout="constrained")
        shares, losses, trust = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
        _draw_shares(shares, result)
        _draw_losses(losses, result)
        _draw_trust(trust, result)
        for axes in (shares, losses, trust):
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = shares.get_legend_handles_labels()
        more = dict(zip(*losses.get_legend_handles_labels()[::-1], strict=True))
        known = dict(zip(labels, handles, strict=True)) | more
        figure.legend(known.values(), known.keys(), loc="outside upper left", ncols=len(known), frameon=False)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png")


def _draw_shares(axes: Axes, result: dict[str, Any]) -> None:
    places = range(len(result["sources"]))
    sampled = [record["shares"] for record in result["mixtures"] if record["name"] not in MARKS]
    for shares in sampled:
        axes.plot(shares, places, "|", color=GREY, markersize=7, alpha=0.6, zorder=1)
    for record in result["mixtures"]:
        if mark := MARKS.get(record["name"]):
            axes.plot(record["shares"], places, mark, color=INK, markerfacecolor="none", label=record["name"])
    axes.plot(result["shares"], places, "o", color=PROPOSED, markersize=8, label="proposed", zorder=3)
    axes.set_yticks(places, result["sources"])
    axes.set_ylim(max(len(places), FEWEST_BARS) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the rows (grey: sampled mixtures)")
    axes.grid(axis="y", color="#eeeeee")


def _draw_losses(axes: Axes, result: dict[str, Any]) -> None:
    codes = list(result["predicted"])
    places = range(len(codes))
    for record in result["mixtures"]:
        values = [record["bits_per_byte"][code] for code in codes]
        if mark := MARKS.get(record["name"]):
            axes.plot(values, places, mark, color=INK, markerfacecolor="none")
        else:
            axes.plot(values, places, "|", color=GREY, markersize=7, alpha=0.6, zorder=1)
    values = [result["predicted"][code] for code in codes]
    errors = [2 * result["deviation"][code] for code in codes]
    style: dict[str, Any] = {"color": PROPOSED, "markersize": 8, "capsize": 3, "zorder": 3}
    axes.errorbar(values, places, xerr=errors, fmt="o", label="proposed (predicted ± 2 deviations)", **style)
    measured = [result["confirmed"]["bits_per_byte"][code] for code in codes]
    axes.plot(measured, places, "x", color=PALETTE[0], markersize=8, mew=2, zorder=4, label="proposed (measured)")
    axes.set_yticks(places, codes)
    axes.set_ylim(max(len(places), FEWEST_BARS) - 0.4, -0.6)
    axes.set_xlabel("bits per byte of held-out text")
    axes.grid(axis="y", color="#eeeeee")


def _draw_trust(axes: Axes, result: dict[str, Any]) -> None:
    measured = [record["objective"] for record in result["mixtures"]]
    predicted = [record["left_out"] for record in result["mixtures"]]
    low, high = min(measured + predicted), max(measured + predicted)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
    for record in result["mixtures"]:
        mark = MARKS.get(record["name"])
        style: dict[str, Any] = {"markerfacecolor": "none"} if mark else {"markersize": 4, "mew": 0}
        axes.plot(record["left_out"], record["objective"], mark or "o", color=INK if mark else "#777777", **style)
    aim = result["objective"]
    axes.errorbar(
        aim["predicted"], result["confirmed"]["objective"], xerr=2 * aim["deviation"], fmt="o", color=PROPOSED
    )
    trust = result["trust"]
    axes.set_title(f"Spearman {trust['spearman']:.2f}, R² {trust['r_squared']:.2f}", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("objective as predicted without the mixture itself")
    axes.set_ylabel("objective as measured")
