"""What the report says in numbers: headline, facts, and the tables of the evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.core.languages import language_name

if TYPE_CHECKING:
    from seallm_jax.evaluation.report import ReportData

FULL_HEAT = 0.6  # relative change from which a cell has its strongest colour


def headline(data: ReportData) -> dict[str, Any] | None:
    """Change in bits per byte from the first to the last evaluated stage, by language, largest gain first."""
    ends = _ends(data.bits_per_byte)
    if ends is None:
        return None
    (first, before), (last, after) = ends
    tiles = []
    for code in (code for code in before if code in after):
        old, new = before[code]["bits_per_byte"], after[code]["bits_per_byte"]
        tiles.append({"code": code, "name": language_name(code), "old": old, "new": new, "change": new / old - 1})
    others = [tile for tile in tiles if tile["code"] != "en"]
    old, new = _mean(tile["old"] for tile in others), _mean(tile["new"] for tile in others)
    return {
        "first": first,
        "last": last,
        "tiles": sorted(tiles, key=lambda tile: tile["change"]),
        "languages": len(others),
        "old": old,
        "new": new,
        "change": new / old - 1 if old and new else None,
        "english": next((tile for tile in tiles if tile["code"] == "en"), None),
    }


def facts(data: ReportData) -> list[dict[str, str]]:
    """Small cards under the headline: {label, value, note}."""
    from seallm_jax.evaluation.report import duration, percent

    cards = []
    if data.training:
        tokens = {stage: lines[-1].get("tokens") or 0 for stage, lines in data.training.items() if lines}
        cards.append({"label": "tokens trained", "value": _short(sum(tokens.values())), "note": ", ".join(tokens)})
    ratios = [row["ratio"] - 1 for row in data.fertility or () if row["language"] != "en" and row.get("ratio")]
    if ratios:
        value, note = percent(_mean(ratios), 0, sign=True), "mean over languages other than English"
        cards.append({"label": "tokens for the same text", "value": value, "note": note})
    ends = _ends(data.choices)
    if ends is not None:
        (_, old), (_, new) = ends
        value = f"{percent(_pooled(old))} → {percent(_pooled(new))}"
        guess = _pooled(new, "chance")
        cards.append({"label": "multiple choice", "value": value, "note": f"guessing gives {percent(guess)}"})
    ends = _ends(data.preferences)
    if ends is not None:
        (first, old_pairs), (last, new_pairs) = ends
        value = f"{percent(_pooled(old_pairs.values()))} → {percent(_pooled(new_pairs.values()))}"
        cards.append({"label": "preference accuracy", "value": value, "note": f"{first} to {last}"})
    if data.seconds:
        note = f"{len(data.seconds)} stages"
        cards.append({"label": "wall time", "value": duration(sum(data.seconds.values())), "note": note})
    return cards


def fertility_section(data: ReportData) -> dict[str, Any] | None:
    """Table and plot of what text costs in tokens: relative to English where there is aligned text, else per byte."""
    if not data.fertility:
        return None
    from seallm_jax.evaluation.plots import fertility_plot
    from seallm_jax.evaluation.report import percent, picture

    rows = [
        {
            "language": row["name"],
            "": row["language"],
            "bytes": row["bytes"],
            "tokens before": row["base_tokens"],
            "after": row["extended_tokens"],
            "change": percent(row["ratio"] - 1, sign=True) if row["ratio"] else None,
            "per byte before": row["base_tokens_per_byte"] or None,
            "after ": row["extended_tokens_per_byte"] or None,
            "relative to English before": row["base_relative"],
            "after  ": row["extended_relative"],
            "lines with the same ids": percent(row["unchanged"]) if row["unchanged"] is not None else None,
        }
        for row in data.fertility
    ]
    measure, label = "relative", "tokens relative to the same text in English under the base tokenizer"
    drawn = [row for row in data.fertility if row["base_relative"] is not None]
    if not drawn:
        measure, label = "tokens_per_byte", "tokens per UTF-8 byte"
        drawn = [row for row in data.fertility if row["bytes"]]
    series = {
        name: {row["language"]: row[f"{name}_{measure}"] for row in drawn} for name in ("base", "extended") if drawn
    }
    return {"rows": rows, "label": label, "images": picture(fertility_plot(series, label)) if drawn else None}


def bits_section(data: ReportData) -> dict[str, Any] | None:
    """Table and plot of bits per byte: a row a language, a column a stage, coloured by the change from the first."""
    stages = {stage: values for stage, values in (data.bits_per_byte or {}).items() if values}
    if not stages:
        return None
    from seallm_jax.evaluation.plots import bits_plot
    from seallm_jax.evaluation.report import picture

    numbers = {s: {code: entry["bits_per_byte"] for code, entry in values.items()} for s, values in stages.items()}
    codes = list(dict.fromkeys(code for values in stages.values() for code in values))
    first, last = list(stages)[0], list(stages)[-1]
    rows: list[dict[str, Any]] = []
    for code in codes:
        base, final = numbers[first].get(code), numbers[last].get(code)
        entry = stages[last].get(code) or stages[first].get(code) or {}
        cells = [_heat_cell(values.get(code), base, stages[stage].get(code)) for stage, values in numbers.items()]
        change = final / base - 1 if base and final else None
        rows.append({"code": code, "bytes": entry.get("bytes"), "cells": cells, "change": change})
    rows.sort(key=lambda row: (row["change"] is None, row["change"]))
    images = picture(bits_plot(numbers, [row["code"] for row in rows]))
    return {"stages": list(stages), "rows": rows, "images": images, "english": _english(numbers)}


def choices_section(data: ReportData) -> dict[str, Any] | None:
    """Table and plot of normalised multiple-choice accuracy: a row a task and language, a column a stage."""
    stages = {stage: rows for stage, rows in (data.choices or {}).items() if rows}
    if not stages:
        return None
    from seallm_jax.evaluation.plots import accuracy_plot
    from seallm_jax.evaluation.report import picture

    tasks = {row["task"] for rows in stages.values() for row in rows}
    groups = {
        stage: {(row["language"] if len(tasks) == 1 else f"{row['task']} {row['language']}"): row for row in rows}
        for stage, rows in stages.items()
    }
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    rows = []
    for name in names:
        sample = next(group[name] for group in groups.values() if name in group)
        cells = [group.get(name) for group in groups.values()]
        rows.append({key: sample[key] for key in ("task", "language", "items", "chance")} | {"cells": cells})
    points = {
        stage: {name: _point(row["accuracy_normalized"]) for name, row in group.items()}
        for stage, group in groups.items()
    }
    chance = {name: row["chance"] for name, row in zip(names, rows, strict=True)}
    pooled = [{"accuracy": _pooled(rows), "chance": _pooled(rows, "chance")} for rows in stages.values()]
    images = picture(accuracy_plot(points, chance))
    many = len(tasks) > 1
    return {"stages": list(stages), "rows": rows, "many_tasks": many, "pooled": pooled, "images": images}


def preferences_section(data: ReportData) -> dict[str, Any] | None:
    """Table and plot of preference accuracy: a row a language, a column a stage."""
    stages = {stage: values for stage, values in (data.preferences or {}).items() if values}
    if not stages:
        return None
    from seallm_jax.evaluation.plots import accuracy_plot
    from seallm_jax.evaluation.report import picture

    codes = list(dict.fromkeys(code for values in stages.values() for code in values))
    rows = []
    for code in codes:
        sample = next(values[code] for values in stages.values() if code in values)
        cells = [values.get(code) for values in stages.values()]
        rows.append({"code": code, "pairs": sample["pairs"], "cells": cells})
    points = {
        stage: {code: _point(entry["accuracy_normalized"]) for code, entry in values.items()}
        for stage, values in stages.items()
    }
    images = picture(accuracy_plot(points, dict.fromkeys(codes, 0.5)))
    implicit = any(entry.get("implicit_accuracy") for values in stages.values() for entry in values.values())
    pooled = [_pooled(values.values()) for values in stages.values()]
    return {"stages": list(stages), "rows": rows, "images": images, "implicit": implicit, "pooled": pooled}


def mixture_section(data: ReportData) -> dict[str, Any] | None:
    """Rows of `Curriculum.table()` with a row a source and its share of each stage, and the stages' notes."""
    if not data.mixture:
        return None
    from seallm_jax.evaluation.report import percent

    stages = list(dict.fromkeys(row["stage"] for row in data.mixture))
    served = {(row["source"], row["stage"]): row for row in data.mixture}
    rows = []
    for source in dict.fromkeys(row["source"] for row in data.mixture):
        mine = [served.get((source, stage)) for stage in stages]
        row: dict[str, Any] = {"source": source}
        for stage, entry in zip(stages, mine, strict=True):
            row[f"share in {stage}"] = percent(entry["share"]) if entry else None
        row["tokens"] = sum(entry["tokens"] for entry in mine if entry)
        row["epochs"] = sum(float(entry["epochs"]) for entry in mine if entry)
        rows.append(row)
    notes = [{"stage": row["stage"], "text": row["notes"]} for row in data.mixture if row.get("notes")]
    return {"rows": rows, "notes": notes}


def generation_groups(data: ReportData, longest: int) -> list[dict[str, Any]]:
    """Generations by language: {code, items: [{prompt, outputs}]}, texts cut to `longest` characters."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in data.generations or ():
        outputs = {stage: _cut(text, longest) for stage, text in row["outputs"].items()}
        groups.setdefault(row["language"], []).append({"prompt": _cut(row["prompt"], longest), "outputs": outputs})
    return [{"code": code, "items": items} for code, items in groups.items()]


def _heat_cell(value: float | None, base: float | None, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    change = value / base - 1 if value and base else 0.0
    strength = round(min(1.0, abs(change) / FULL_HEAT) * 100) if abs(change) > 0.002 else 0
    error = (entry or {}).get("standard_error")
    return {"value": value, "change": change, "strength": strength, "error": error}


def _english(numbers: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    values = {stage: codes["en"] for stage, codes in numbers.items() if "en" in codes}
    if len(values) < 2:
        return None
    stages = list(values)
    changes = [{"stage": stage, "change": values[stage] / values[stages[0]] - 1} for stage in stages[1:]]
    return {"first": stages[0], "changes": changes}


def _ends(stages: Mapping[str, Any] | None) -> tuple[tuple[str, Any], tuple[str, Any]] | None:
    """First and last entry of a mapping with two entries or more that hold something."""
    filled = [(stage, values) for stage, values in (stages or {}).items() if values]
    return (filled[0], filled[-1]) if len(filled) > 1 else None


def _pooled(rows: Iterable[Mapping[str, Any]], key: str = "accuracy_normalized") -> float:
    counted = [(row["items"] if "items" in row else row["pairs"], row[key]) for row in rows]
    total = sum(count for count, _ in counted)
    return sum((value if key == "chance" else value["value"]) * count for count, value in counted) / total


def _point(accuracy: Mapping[str, Any]) -> tuple[float, float | None]:
    return accuracy["value"], accuracy["standard_error"]


def _mean(values: Iterable[float]) -> float | None:
    found: Sequence[float] = list(values)
    return sum(found) / len(found) if found else None


def _short(number: float) -> str:
    for divisor, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= divisor:
            return f"{number / divisor:.1f} {unit}"
    return f"{number:.0f}"


def _cut(text: Any, longest: int) -> str:
    text = str(text)
    return text if len(text) <= longest else text[:longest] + " …"
