"""A picture of a fertility table."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file

_FORMATS = (".png", ".svg", ".pdf")
_MUTED, _ACCENT, _INK = "#b4bcc6", "#0b7a75", "#1f2933"


def plot_fertility(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Draws the rows of `fertility_table`: base and extended tokenizer per language, worst language on top.

    Tokens relative to English where the table has them, else tokens per byte.

    Args:
      rows: from `fertility_table`.
      path: .png, .svg or .pdf; written atomically.

    Raises:
      SeallmError: another ending, or no rows to draw.
    """
    from matplotlib.figure import Figure

    path = pathlib.Path(path)
    if path.suffix not in _FORMATS:
        raise SeallmError(f"cannot draw into {path.name}: use one of {', '.join(_FORMATS)}")
    measure, label = "relative", "tokens, relative to the same text in English under the base tokenizer"
    drawn = [row for row in rows if row["base_relative"] is not None]
    if not drawn:
        measure, label = "tokens_per_byte", "tokens per UTF-8 byte"
        drawn = [row for row in rows if row["bytes"]]
    if not drawn:
        raise SeallmError("the fertility table has no rows to draw")
    drawn = sorted(drawn, key=lambda row: row[f"base_{measure}"])
    figure = Figure(figsize=(10, 1.2 + 0.42 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(drawn))
    for series, shift, colour in (("base", 0.19, _MUTED), ("extended", -0.19, _ACCENT)):
        values = [row[f"{series}_{measure}"] for row in drawn]
        bars = axes.barh([place + shift for place in places], values, height=0.36, color=colour, label=series)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8, color=_INK)
    if measure == "relative":
        axes.axvline(1, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(list(places), [f"{row['name']} ({row['language']})" for row in drawn])
    axes.set_xlabel(label)
    axes.margins(x=0.08, y=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
