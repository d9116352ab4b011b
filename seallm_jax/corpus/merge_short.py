"""Short documents joined with their neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from seallm_jax.corpus.document import Document

SEPARATOR = "\n\n"


def merge_short(documents: Iterable[Document], maximum_characters: int) -> Iterator[Document]:
    """Joins neighbouring documents of a language by a blank line while they stay within `maximum_characters` (merging
    of short examples: Sailor, arXiv 2404.03608).

    Documents keep their order within a language; every text comes out once. A joined document has the source of its
    first part with `+N` for N further ones, and the lowest quality of its parts (None when one has none).
    """
    waiting: dict[str, list[Document]] = {}
    lengths: dict[str, int] = {}
    for document in documents:
        parts = waiting.setdefault(document.language, [])
        longer = lengths.get(document.language, 0) + len(document.text) + len(SEPARATOR)
        if parts and longer > maximum_characters:
            yield join_documents(parts)
            parts.clear()
        lengths[document.language] = longer if parts else len(document.text)
        parts.append(document)
    for parts in waiting.values():
        yield join_documents(parts)


def join_documents(parts: list[Document], *, language: str = "", source: str = "") -> Document:
    """One document of several; a single one stays as it is. `language` is that of the first if none is given, `source`
    that of the first with the number of the others."""
    first = parts[0]
    if len(parts) == 1:
        return first
    qualities = [part.quality for part in parts if part.quality is not None]
    return dataclasses.replace(
        first,
        text=SEPARATOR.join(part.text for part in parts),
        language=language or first.language,
        source=source or f"{first.source}+{len(parts) - 1}",
        url=first.url if len({part.url for part in parts}) == 1 else "",
        quality=min(qualities) if len(qualities) == len(parts) else None,
    )
