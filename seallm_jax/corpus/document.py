"""One document, and one record that could not become a document."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its language.

    Attributes:
      text: the text.
      language: language code; empty while unknown.
      source: where it was read, as `file.jsonl:12`.
    """

    text: str
    language: str
    source: str

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text.encode())


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that is not used: where it stands, why, its language if known, its size in bytes and how it begins."""

    source: str
    reason: str
    language: str = ""
    num_bytes: int = 0
    excerpt: str = ""
