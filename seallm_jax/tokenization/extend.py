"""Vocabulary extension: new pieces on top of a base tokenizer, whose ids never move."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.chat import CHAT_TOKENS
from seallm_jax.tokenization.merges import LearnedPiece, MergeLearner
from seallm_jax.tokenization.model_file import SPACE, append_pieces
from seallm_jax.tokenization.segments import SymbolTable, Words
from seallm_jax.tokenization.tokenizer import Tokenizer

MAXIMUM_PIECE_LENGTH = 16  # characters, as in SentencePiece
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
    """

    tokenizer: Tokenizer
    base_size: int
    base_digest: str
    new_pieces: tuple[str, ...]
    source_ids: list[list[int]]
    frequencies: tuple[int, ...]

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the tokenizer's files and `extension.json`, from which `load` restores this object."""
        directory = pathlib.Path(directory)
        self.tokenizer.save(directory)
        record = {
            "base_size": self.base_size,
            "base_digest": self.base_digest,
            "tokenizer_digest": self.tokenizer.digest,
            "new_pieces": self.new_pieces,
            "source_ids": self.source_ids,
            "frequencies": self.frequencies,
        }
        write_json(directory / EXTENSION_NAME, record)

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Extension:
        """Reads what `save` wrote. Raises SeallmError when it is missing or does not belong to the tokenizer there."""
        directory = pathlib.Path(directory)
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
        )


def extend_tokenizer(
    base: Tokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    size: int,
    *,
    alpha: float = 0.5,
    minimum_frequency: int = 3,
    protected_texts: Iterable[str] = (),
    protected_ratio: float = 0.02,
    threads: int = 0,
    progress: Progress | None = None,
) -> Extension:
    """Continued BPE: learns merges on top of the base tokenizer's own.

    Chat tokens that the base lacks come first. Characters that the base can only write as bytes compete with merges for
    the places. No new piece crosses a space, a digit, ZWSP or a change of script.

    Args:
      base: the tokenizer to extend.
      texts_by_language: training documents per language. Text in other languages keeps its ids where it has none of the
        new pieces.
      size: new tokens at most, chat tokens included; 0 returns the base as it is.
      alpha: languages weigh by size ** alpha (size in UTF-8 bytes): 1 by size, 0 all the same.
      minimum_frequency: a new piece must occur this often in the training text.
      protected_texts: documents whose ids should stay as they are, such as English. A piece is refused when they have
        it more than `protected_ratio` times as often, per byte, as the training text has. This costs the languages that
        share the script some of their gain.
      threads: for reading; 0 takes all cores.
      progress: reports reading and learning, and says when the text supports fewer pieces than `size`.

    Raises:
      SeallmError: no text, a negative size, or no room for the chat tokens.
    """
    progress = progress or Progress.silent()
    if size < 0 or minimum_frequency < 1:
        raise SeallmError(f"vocabulary size {size} and minimum frequency {minimum_frequency} must be at least 0 and 1")
    if size == 0:
        return Extension(base, base.size, base.digest, (), [], ())
    control = [token for token in CHAT_TOKENS if base.id_of(token) is None]
    if size < len(control):
        raise SeallmError(f"vocabulary size {size} has no room for the chat tokens {', '.join(control)}")
    table = SymbolTable(base)
    words = []
    for name, texts in (*texts_by_language.items(), ("protected text", protected_texts)):
        with progress.task(f"reading {name}") as advance:
            words.append(table.words(texts, threads=threads, advance=advance))
    if not any(block.size for block in words[:-1]):
        raise SeallmError("cannot extend the vocabulary: there is no text")
    wanted = size - len(control)
    learner = MergeLearner(
        table,
        base.mergeable_pieces,
        words,
        [*_factors(words[:-1], alpha), None],
        protected_ratio=protected_ratio,
        size=wanted,
        minimum_frequency=minimum_frequency,
        maximum_length=MAXIMUM_PIECE_LENGTH,
    )
    with progress.task("learning new tokens", total=wanted) as advance:
        learned = _prune(learner.learn(advance), minimum_frequency)
    learned, tokenizer = _assemble(base, control, learned)
    if len(learned) < wanted:
        progress.say(f"the text supports {len(learned)} new tokens with frequency {minimum_frequency}, not {wanted}")
    pieces = (*control, *(piece.text for piece in learned))
    return Extension(
        tokenizer=tokenizer,
        base_size=base.size,
        base_digest=base.digest,
        new_pieces=pieces,
        source_ids=[base.encode_fragment(piece.replace(SPACE, " ")) for piece in pieces],
        frequencies=(*(0 for _ in control), *(piece.frequency for piece in learned)),
    )


def _factors(words: Sequence[Words], alpha: float) -> list[float]:
    """Weight of one occurrence per language, so that a language counts as size ** alpha; 1 for the largest."""
    largest = max(block.size for block in words)
    return [(max(block.size, 1) / largest) ** (alpha - 1) for block in words]


def _prune(learned: list[LearnedPiece], minimum_frequency: int) -> list[LearnedPiece]:
    """Drops pieces that end up too rare, unless other pieces are made of them. Their occurrences go to their parts."""
    frequency = {piece.text: piece.frequency for piece in learned}
    needed: set[str] = set()
    kept = []
    for piece in reversed(learned):  # parts come before what is made of them
        if piece.text in needed or frequency[piece.text] >= minimum_frequency:
            needed.update(piece.parts)
            kept.append(dataclasses.replace(piece, frequency=frequency[piece.text]))
            continue
        for part in piece.parts:
            if part in frequency:
                frequency[part] += frequency[piece.text]
    return kept[::-1]


def _assemble(base: Tokenizer, control: list[str], learned: list[LearnedPiece]) -> tuple[list[LearnedPiece], Tokenizer]:
    """The extended tokenizer; pieces that do not come out of their own text are left out."""
    while True:
        proto = base.copy_proto()
        append_pieces(proto, [piece.text for piece in learned], control=control)
        tokenizer = Tokenizer(
            proto.SerializeToString(deterministic=True),
            chat_template=base.chat_template if base.has_own_template else None,
            eos_token=base.piece(base.eos_id),
            model_max_length=base.model_max_length,
        )
        reached = [
            piece
            for index, piece in enumerate(learned, start=base.size + len(control))
            if tokenizer.encode_fragment(piece.text.replace(SPACE, " ")) == [index]
        ]
        if len(reached) == len(learned):
            return learned, tokenizer
        learned = reached
