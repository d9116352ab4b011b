"""An extended tokenizer and the record of how it came about."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, write_json
from seallm_jax.tokenization.tokenizer import Tokenizer

EXTENSION_NAME = "extension.json"


@dataclasses.dataclass(frozen=True)
class Extension:
    """An extended tokenizer and how it came about.

    Attributes:
      tokenizer: ids below `base_size` are the base's; new piece i has id base_size + i.
      base_size: size of the base tokenizer.
      base_digest: digest of the base tokenizer.
      new_pieces: chat tokens that the base lacked first, then characters and merges in the order of learning.
      source_ids: ids of the base tokenizer for the text of each new piece; what its embedding is made from.
      frequencies: how often each new piece is left in the training text; 0 for the chat tokens.
      languages: the language that has most of each new piece; empty for the chat tokens, and where it is not known.
      method: how the pieces were found.
    """

    tokenizer: Tokenizer
    base_size: int
    base_digest: str
    new_pieces: tuple[str, ...]
    source_ids: list[list[int]]
    frequencies: tuple[int, ...]
    languages: tuple[str, ...] = ()
    method: str = "continued_bpe"

    @classmethod
    def of(
        cls,
        base: Tokenizer,
        tokenizer: Tokenizer,
        control: Sequence[str],
        pieces: Sequence[str],
        *,
        frequencies: Sequence[int],
        languages: Sequence[str],
        method: str,
    ) -> Extension:
        """The record of a base extended by chat tokens, then pieces; frequency and language are those of the pieces."""
        return cls(
            tokenizer=tokenizer,
            base_size=base.size,
            base_digest=base.digest,
            new_pieces=(*control, *pieces),
            source_ids=[*map(base.encode_fragment, control), *map(base.encode_piece, pieces)],
            frequencies=(*(0 for _ in control), *frequencies),
            languages=(*("" for _ in control), *languages),
            method=method,
        )

    def tokens_by_language(self) -> dict[str, int]:
        """How many new pieces each language has, largest first; the chat tokens are nobody's."""
        names = [name for name in self.languages if name]
        return dict(sorted(((name, names.count(name)) for name in set(names)), key=lambda item: (-item[1], item[0])))

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the tokenizer's files and `extension.json`, from which `load` restores this object."""
        directory = pathlib.Path(directory)
        self.tokenizer.save(directory)
        record = {
            "method": self.method,
            "base_size": self.base_size,
            "base_digest": self.base_digest,
            "tokenizer_digest": self.tokenizer.digest,
            "new_pieces": self.new_pieces,
            "source_ids": self.source_ids,
            "frequencies": self.frequencies,
            "languages": self.languages,
        }
        write_json(directory / EXTENSION_NAME, record)

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Extension:
        """Reads what `save` wrote. Raises SeallmError when it is missing or does not belong to the tokenizer there."""
        directory = pathlib.Path(directory)
        if not (directory / EXTENSION_NAME).exists():
            raise SeallmError(f"{directory} has no {EXTENSION_NAME}; extend a tokenizer with `seallm vocab extend`")
        record: dict[str, Any] = read_json(directory / EXTENSION_NAME)
        tokenizer = Tokenizer.load(directory)
        if record.get("tokenizer_digest") != tokenizer.digest:
            raise SeallmError(f"{directory / EXTENSION_NAME} belongs to another tokenizer; extend the base again")
        return cls(
            tokenizer,
            record["base_size"],
            record["base_digest"],
            tuple(record["new_pieces"]),
            record["source_ids"],
            tuple(record["frequencies"]),
            tuple(record.get("languages", ())),
            record.get("method", "continued_bpe"),
        )
