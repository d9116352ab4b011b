"""One document, and one record that could not become a document."""

from __future__ import annotations

import dataclasses
from typing import Any

EXCERPT_CHARACTERS = 200


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its language.

    Attributes:
      text: the text.
      language: language code; empty while unknown.
      source: where it was read, as `file.jsonl:12`.
      url: where it was published, if known.
      quality: score in [0, 1], if one was given.
    """

    text: str
    language: str
    source: str
    url: str = ""
    quality: float | None = None

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text.encode(errors="surrogatepass"))

    def rejected(self, reason: str, detail: str = "") -> Rejected:
        """The record of this document in the list of what is not used."""
        return Rejected(self.source, reason, self.language, self.num_bytes, self.text[:EXCERPT_CHARACTERS], detail)

    def to_record(self) -> dict[str, Any]:
        """The fields of the JSON line: text, lang, source, and url and quality where they are known."""
        record: dict[str, Any] = {"text": self.text, "lang": self.language, "source": self.source}
        if self.url:
            record["url"] = self.url
        if self.quality is not None:
            record["quality"] = round(self.quality, 4)
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Document:
        """The inverse of `to_record`; further fields are ignored."""
        return cls(record["text"], record["lang"], record["source"], record.get("url", ""), record.get("quality"))


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that is not used: where it stands, why, its language if known, its size in bytes and how it begins.

    `detail` says what the reason refers to, as the line of the evaluation file that a contaminated document repeats.
    """

    source: str
    reason: str
    language: str = ""
    num_bytes: int = 0
    excerpt: str = ""
    detail: str = ""
