"""What became of the documents of one language."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from typing import Any

from seallm_jax.corpus.document import Rejected

SAMPLES = 3  # dropped records shown for each reason
SAMPLE_CHARACTERS = 200
COUNTERS = ("dropped", "dropped_bytes", "identified", "masked")


@dataclasses.dataclass
class LanguageCounts:
    """Documents and UTF-8 bytes of one language, which add up over tasks in any order.

    Attributes:
      train_documents: those kept, before short ones are merged and some are joined across languages.
      code_switched_documents: joined ones, and those written from aligned sentences.
      dropped: documents by reason.
      dropped_bytes: bytes by reason.
      identified: labelled documents by the language that identification finds.
      masked: personal data that was replaced, by kind.
      samples: reason -> (source, beginning) of a few dropped records, the same ones whatever the tasks were.
    """

    documents_read: int = 0
    bytes_read: int = 0
    train_documents: int = 0
    train_bytes: int = 0
    heldout_documents: int = 0
    heldout_bytes: int = 0
    parallel_documents: int = 0
    parallel_bytes: int = 0
    code_switched_documents: int = 0
    code_switched_bytes: int = 0
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    dropped_bytes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    identified: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    masked: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    samples: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)

    def keep(self, kind: str, num_bytes: int) -> None:
        """Counts a document that is written to `KIND/`: train, heldout, parallel or code_switched."""
        for name, amount in ((f"{kind}_documents", 1), (f"{kind}_bytes", num_bytes)):
            setattr(self, name, getattr(self, name) + amount)

    def drop(self, record: Rejected) -> None:
        """Counts a record that is not used."""
        self.dropped[record.reason] += 1
        self.dropped_bytes[record.reason] += record.num_bytes
        self._add_samples(record.reason, [(record.source, record.excerpt[:SAMPLE_CHARACTERS])])

    def add(self, other: LanguageCounts) -> None:
        """Adds the counts of another task."""
        for field in dataclasses.fields(self):
            if field.type == "int":
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for reason, samples in other.samples.items():
            self._add_samples(reason, samples)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.__dict__ | {name: dict(getattr(self, name)) for name in COUNTERS}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LanguageCounts:
        """The inverse of `to_json`."""
        counters = {name: collections.Counter(value.get(name, {})) for name in COUNTERS}
        samples = {reason: [(s[0], s[1]) for s in samples] for reason, samples in value.get("samples", {}).items()}
        return cls(**value | counters | {"samples": samples})

    def _add_samples(self, reason: str, samples: list[tuple[str, str]]) -> None:
        found = self.samples.get(reason, []) + samples
        # by hash, so that the choice is spread over all files and does not depend on who read them
        self.samples[reason] = sorted(found, key=lambda sample: hashlib.sha256(sample[0].encode()).digest())[:SAMPLES]
