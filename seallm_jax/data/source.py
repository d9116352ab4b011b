"""A source of packed rows."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of packed rows that a curriculum draws from.

    Attributes:
      name: kind/language, as in text/km or instructions/vi.
      rows: number of packed rows.
      digest: digest of the rows; part of the schedule's digest, so that other data means another schedule.
    """

    name: str
    rows: int
    digest: str = ""

    @property
    def kind(self) -> str:
        """text, instructions or preferences."""
        return self.name.partition("/")[0]

    @property
    def language(self) -> str:
        """Language code."""
        return self.name.partition("/")[2]
