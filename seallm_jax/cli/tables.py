"""Tables on standard output."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH_OF_A_FILE = 160


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows as a table; the keys of the first row are the columns. Numbers are right-aligned."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for key in rows[0]:
        numeric = all(isinstance(row.get(key), int | float) or row.get(key) in (None, "") for row in rows)
        table.add_column(str(key), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(format_value(row.get(key)) for key in rows[0]))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_OF_A_FILE
    Console(width=width, highlight=False).print(table)


def format_value(value: Any) -> str:
    """Text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
    return str(value)
