"""The report of a run: one HTML page without network, scripts or missing glyphs."""

from __future__ import annotations

import base64
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import language_name
from seallm_jax.core.paths import atomic_file

TEMPLATE = "report_template.html"
IMAGE_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
LONGEST_TEXT = 4000  # characters of a generation that are shown
# Control characters, surrogates and non-characters: HTML cannot hold them.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
QUANTITY = re.compile(r"[-+−]?[\d.,]+%?|n/a|–|")

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ReportData:
    """What a run found, as plain data. A field that is None (or empty) leaves its section out.

    Mappings by stage keep their order, from the base model to the final one: their first and last entries are what
    "before" and "after" mean.

    Attributes:
      name: the run's name.
      date: when the run finished, as text.
      config_digest: digest of the resolved configuration.
      config: the resolved configuration, shown folded.
      versions: package -> version.
      seconds: stage -> wall time.
      command: what reproduces the run.
      corpus: `CorpusReport.table()`.
      dropped: `CorpusReport.dropped_table()`.
      fertility: rows of `tokenization.fertility.fertility_table()`.
      mixture: rows of `Curriculum.table()`.
      mixture_plot: .svg or .png file.
      training: stage -> lines of its metrics.jsonl.
      bits_per_byte: stage -> language -> {bits_per_byte, ...}, from `BitsPerByte.to_json()`.
      choices: stage -> rows {task, language, items, chance, accuracy, ...}, from `ChoiceScores.to_json()`.
      preferences: stage -> language -> {pairs, accuracy, ...}, from `PreferenceScores.to_json()`.
      generations: {language, prompt, outputs: {stage: text}}.
      export: {path, ...} of the Hugging Face folder; further entries are shown as facts.
    """

    name: str
    date: str | None = None
    config_digest: str | None = None
    config: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None
    seconds: Mapping[str, float] | None = None
    command: str | None = None
    corpus: Sequence[Row] | None = None
    dropped: Sequence[Row] | None = None
    fertility: Sequence[Row] | None = None
    mixture: Sequence[Row] | None = None
    mixture_plot: str | pathlib.Path | None = None
    training: Mapping[str, Sequence[Row]] | None = None
    bits_per_byte: Mapping[str, Mapping[str, Row]] | None = None
    choices: Mapping[str, Sequence[Row]] | None = None
    preferences: Mapping[str, Mapping[str, Row]] | None = None
    generations: Sequence[Row] | None = None
    export: Mapping[str, Any] | None = None


def build_report(data: ReportData, output: str | pathlib.Path) -> pathlib.Path:
    """Writes `output`/report.html and returns its path.

    Raises:
      SeallmError: a mixture plot that is missing or is neither .svg nor .png.
    """
    import jinja2

    from seallm_jax.evaluation import report_tables, report_training

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "duration": duration, "percent": percent, "language": language_name}
    environment.globals |= {"columns": columns, "is_quantity": is_quantity, "column_cells": column_cells}
    sections = {
        "headline": report_tables.headline(data),
        "facts": report_tables.facts(data),
        "fertility": report_tables.fertility_section(data),
        "mixture": report_tables.mixture_section(data),
        "mixture_image": _file_uri(data.mixture_plot) if data.mixture_plot else None,
        "training": report_training.training_sections(data),
        "bits": report_tables.bits_section(data),
        "choices": report_tables.choices_section(data),
        "preferences": report_tables.preferences_section(data),
        "generations": report_tables.generation_groups(data, LONGEST_TEXT),
    }
    page = environment.get_template(TEMPLATE).render(data=data, **sections)
    path = pathlib.Path(output) / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def picture(svg: str) -> tuple[str, str]:
    """Data URIs of a plot for a light and a dark page."""
    from seallm_jax.evaluation.plots import darken

    return _data_uri(svg.encode(), ".svg"), _data_uri(darken(svg).encode(), ".svg")


def printable(value: Any) -> Any:
    """Text with what HTML cannot hold replaced by U+FFFD; other values as they are."""
    if isinstance(value, str) and UNPRINTABLE.search(value):
        return type(value)(UNPRINTABLE.sub("\ufffd", value))
    return value


def columns(rows: Sequence[Row]) -> list[str]:
    """Keys of the rows in order of first appearance, without those that are empty everywhere."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if any(row.get(key) not in (None, "") for row in rows)]


def is_quantity(rows: Sequence[Row], key: str) -> bool:
    """Whether a column holds numbers, and is set flush right."""
    return all(
        isinstance(value, (int, float)) or value is None or bool(QUANTITY.fullmatch(str(value)))
        for value in (row.get(key) for row in rows)
    )


def column_cells(rows: Sequence[Row], key: str) -> list[Any]:
    """The column's values as text, fractions with the same number of decimals, as few as keep three exact."""
    values = [row.get(key, "") for row in rows]
    fractions = [value for value in values if isinstance(value, float) and value == value]
    decimals = next((d for d in range(3) if all(round(value, d) == value for value in fractions)), 3)
    if any(0 < abs(value) < 0.001 for value in fractions):
        return [cell(value) for value in values]
    return [
        f"{value:,.{decimals}f}" if isinstance(value, float) and value == value else cell(value) for value in values
    ]


def cell(value: Any) -> Any:
    """A value as it stands in a table: 12,345 for a whole number, three decimals at most for others."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(str(cell(item)) for item in value[:3])
        return f"{shown}, … ({len(value)})" if len(value) > 3 else shown
    return value


def percent(value: float | None, decimals: int = 1, *, sign: bool = False) -> str:
    """0.123 -> "12.3%"; with `sign` "+12.3%" or "−12.3%"."""
    if value is None:
        return "–"
    number = round(value * 100, decimals) or 0.0  # no negative zero
    return f"{number:{'+' if sign and number else ''}.{decimals}f}%".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as 2 h 05 min, 3 min 20 s or 4.1 s."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _file_uri(path: str | pathlib.Path) -> str:
    path = pathlib.Path(path)
    if path.suffix not in IMAGE_TYPES:
        raise SeallmError(f"mixture plot {path} must be an .svg or a .png file")
    try:
        return _data_uri(path.read_bytes(), path.suffix)
    except OSError as error:
        raise SeallmError(f"cannot read the mixture plot {path}: {error.strerror}") from error


def _data_uri(content: bytes, suffix: str) -> str:
    return f"data:{IMAGE_TYPES[suffix]};base64,{base64.b64encode(content).decode()}"
