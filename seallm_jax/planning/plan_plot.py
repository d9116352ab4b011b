"""Memory and predicted time of plans side by side, as one picture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.topology import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, LIMIT = "#333333", "#c0392b"
MEMORY_COLOURS = {
    "parameters": "#1f77b4",
    "optimizer state": "#7fb3d9",
    "batch": "#888888",
    "gradients": "#f0a04b",
    "activations and gathered parameters": "#f7d9a8",
}
TIME_COLOURS = {
    "matmul": "#1f77b4",
    "attention": "#2ca02c",
    "cross_entropy": "#98df8a",
    "optimizer": "#9467bd",
    "elementwise": "#c5b0d5",
}
EXPOSED_COLOURS = ("#d62728", "#ff9896", "#8c564b", "#c49c94", "#e377c2", "#f7b6d2")  # everything that waits
FEWEST_BARS = 3  # room for, so that one plan does not fill the page


def plot_plans(plans: Mapping[str, Plan], path: pathlib.Path) -> None:
    """Draws the memory of a device by category against its limit, and where the predicted time of a row goes.

    Memory of what does not fit is drawn as far as it is known: what the compiler asked for.

    Args:
      plans: by the name to write beside the bars, from top to bottom.
      path: a .png or .svg file, about 1300 pixels wide.

    Raises:
      SeallmError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise SeallmError(f"cannot draw plans as {path.name}; use a name that ends in .png or .svg")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 10, "svg.hashsalt": "plans", "svg.fonttype": "path"}):
        bars = max(len(plans), FEWEST_BARS)
        figure = Figure(figsize=(13, 2.3 + 0.36 * bars), dpi=100, layout="constrained")
        memory, time = figure.subplots(1, 2, sharey=True)
        _draw_memory(memory, plans)
        _draw_time(time, plans)
        memory.set_yticks(range(len(plans)), list(plans), fontsize=9)
        memory.set_ylim(bars - 0.4, -0.6)
        for axes in (memory, time):
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8.5)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def _draw_memory(axes: Axes, plans: Mapping[str, Plan]) -> None:
    capacity = next(iter(plans.values())).capacity_bytes / GIB
    ends = []
    labelled: set[str] = set()
    for place, plan in enumerate(plans.values()):
        left = 0.0
        whole = (plan.peak_bytes if plan.fits else plan.needed_bytes or 0) / GIB
        for name, size in _memory(plan).items():
            # what does not live at the same time as the peak is left out, from the last category on
            width = min(size / GIB, max(whole - left, 0.0))
            label = None if name in labelled else name
            axes.barh(place, width, left=left, height=0.7, color=MEMORY_COLOURS[name], label=label)
            labelled.add(name)
            left += width
        text = f"{whole:.2f} GiB" if plan.fits else f"{whole:.2f} GiB, does not fit" if whole else "does not fit"
        axes.text(left, place, " " + text, va="center", fontsize=8.5, color=INK if plan.fits else LIMIT)
        ends.append(left)
    axes.axvline(capacity, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)), label=f"limit, {capacity:.2f} GiB")
    axes.set_xlim(0, 1.35 * max(*ends, capacity))
    axes.set_xlabel("GiB on a device at the peak")


def _memory(plan: Plan) -> dict[str, int]:
    if plan.fits:
        return plan.memory()
    held = {
        "parameters": plan.parameter_bytes,
        "optimizer state": plan.optimizer_bytes,
        "batch": plan.batch_bytes,
        "gradients": plan.gradient_bytes,
    }
    rest = max((plan.needed_bytes or 0) - sum(held.values()), 0)
    return held | {"activations and gathered parameters": rest}


def _draw_time(axes: Axes, plans: Mapping[str, Plan]) -> None:
    """Bars are milliseconds for a row of a device, so that steps of several sizes can be compared."""
    colours, exposed = dict(TIME_COLOURS), iter(EXPOSED_COLOURS * 4)
    longest = 0.0
    labelled: set[str] = set()
    for place, plan in enumerate(plans.values()):
        if plan.time is None:
            axes.text(
                0, place, " not predicted" if plan.fits else " does not fit", va="center", fontsize=8.5, color=INK
            )
            continue
        scale, left = 1e3 * plan.devices / plan.batch_rows, 0.0
        order = [*TIME_COLOURS, *(name for name in plan.time.parts if name not in TIME_COLOURS)]
        for name in order:
            width = scale * plan.time.parts.get(name, 0.0)
            if not width:
                continue
            if name not in colours:
                colours[name] = next(exposed)
            label = None if name in labelled else name.replace("_", " ")
            axes.barh(place, width, left=left, height=0.7, color=colours[name], label=label)
            labelled.add(name)
            left += width
        speed = f"{plan.tokens_per_second:,.0f} tokens/s"
        axes.text(left, place, " " + speed, va="center", fontsize=8.5, color=INK)
        longest = max(longest, left)
    axes.set_xlim(0, 1.35 * longest if longest else 1)
    axes.set_xlabel("predicted ms for each row of a device (no TPU has run it)")
