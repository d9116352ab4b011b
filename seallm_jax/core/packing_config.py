"""How documents become rows of fixed length."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from seallm_jax.core.require import require

_NAME = re.compile(r"[A-Za-z0-9_]+")  # of a band or a group: part of a directory's name


@dataclasses.dataclass(frozen=True)
class PackingConfig:
    """Documents to rows of `sequence_length` positions.

    Attributes:
      mode: what the documents of a row of running text see of one another, and where their positions begin.
        intra_document: nothing; at 0. open: all that comes before; at their place in the row. anchor: the first token
        of the row, a begin-of-text token that belongs to none of them (arXiv 2411.13476); at their place in the row.
        Conversations stay apart in every mode, preference pairs do without the shared token.
      maximum_pairs: preference pairs per row at most.
      bpe_dropout: probability with which a merge is skipped while running text is encoded (BPE-dropout, arXiv
        1910.13267), so that training sees words in other pieces, too, old ones above all; 0 for none. It makes text
        longer. Text is packed once: all epochs see the same pieces.
      quality_bands: name -> least quality of a document. The documents of a band become the sources text-NAME/LL, in
        the highest band that takes them; text/LL keeps what no band takes.
      mixed: name -> languages whose documents share rows: instead of text/LL they are the source text/NAME.
      workers: processes that pack text; 0 is one a core, or none of their own for a few megabytes. The rows do not
        depend on it.
    """

    sequence_length: int = 256
    mode: Literal["intra_document", "open", "anchor"] = "intra_document"
    maximum_pairs: int = 8
    bpe_dropout: float = 0.0
    quality_bands: dict[str, float] = dataclasses.field(default_factory=dict)
    mixed: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    workers: int = 0

    def __post_init__(self):
        require(self.sequence_length >= 8, "sequence_length", self.sequence_length, "it must be at least 8")
        require(0 <= self.bpe_dropout < 1, "bpe_dropout", self.bpe_dropout, "it must lie in [0, 1)")
        require(self.workers >= 0, "workers", self.workers, "it must not be negative")
        for key in ("quality_bands", "mixed"):
            for name in getattr(self, key):
                require(bool(_NAME.fullmatch(name)), key, name, "a name is made of letters, digits and underscores")
        minima = list(self.quality_bands.values())
        require(len(set(minima)) == len(minima), "quality_bands", self.quality_bands, "each needs a minimum of its own")
        members = [code for group in self.mixed.values() for code in group]
        require(len(set(members)) == len(members), "mixed", self.mixed, "a language can be in one group only")
        for name, group in self.mixed.items():
            require(len(group) > 1, f"mixed[{name!r}]", group, "a group needs two languages at least")
            require(name not in members, "mixed", name, "a group cannot have the name of a language in it")
