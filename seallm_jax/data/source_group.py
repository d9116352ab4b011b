"""How the sources of a curriculum are shown: the largest one by one, with a colour each, and the rest together."""

from __future__ import annotations

import dataclasses

import numpy as np

from seallm_jax.core.languages import language_name
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source import Source

SHOWN = 40  # sources that tables and plots show one by one
PALETTE = (
    *("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#9c6b4e", "#ff8ab7", "#97bbf5", "#4d7a1f"),
    *("#22437a", "#f5d77a", "#b0392b", "#a8dfb0", "#d9c2fa", "#1f7a6c", "#dcc3b2", "#a8447a", "#5fb0d9", "#8a8a2a"),
)
GREY = "#b5b5b5"  # of sources beyond the palette


@dataclasses.dataclass(frozen=True)
class SourceGroup:
    """Sources that are shown as one.

    Attributes:
      indices: int [n], which sources of the curriculum.
      label: what they are called.
      colour: as #rrggbb.
      hatch: matplotlib's, by kind of source.
    """

    indices: np.ndarray
    label: str
    colour: str
    hatch: str = ""


def source_groups(curriculum: Curriculum) -> list[SourceGroup]:
    """The sources that have a weight somewhere, largest first; of more than 40, those behind are one group."""
    quotas = curriculum.schedule.quotas(curriculum.total_rows)
    drawn = np.flatnonzero((curriculum.schedule.weights > 0).any(axis=0))
    order = drawn[np.argsort(-quotas[drawn], kind="stable")]
    kinds = {curriculum.sources[index].kind for index in order}
    alone = order if len(order) <= SHOWN else order[: SHOWN - 1]
    groups = []
    for place, index in enumerate(alone.tolist()):
        source = curriculum.sources[index]
        colour = PALETTE[place] if place < len(PALETTE) else GREY
        groups.append(SourceGroup(np.array([index]), _label(source, kinds), colour, _hatch(source)))
    if rest := order[len(alone) :].tolist():
        groups.append(SourceGroup(np.array(rest), f"{len(rest)} others", GREY))
    return groups


def _label(source: Source, kinds: set[str]) -> str:
    name = language_name(source.language)
    name = name if name == source.language else f"{name} ({source.language})"
    return name if len(kinds) == 1 else f"{name} {source.kind}"


def _hatch(source: Source) -> str:
    return {"text": "", "instructions": "///"}.get(source.kind, "...")
