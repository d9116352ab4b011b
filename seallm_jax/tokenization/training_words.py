"""The words of all languages from which an extension learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.segments import SymbolTable, Words
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer


@dataclasses.dataclass
class TrainingWords:
    """Text as words of the base's symbols.

    Attributes:
      table: the symbols.
      languages: codes; the words of the protected text come after theirs.
      words: words per language, then those of the protected text.
      factors: weight of one occurrence per language; None for the protected text.
    """

    table: SymbolTable
    languages: tuple[str, ...]
    words: list[Words]
    factors: list[float | None]

    @classmethod
    def read(
        cls,
        base: Any,
        texts_by_language: Mapping[str, Iterable[str]],
        protected_texts: Iterable[str],
        settings: ExtensionSettings,
        *,
        table: Any = None,
    ) -> TrainingWords:
        """Reads all texts once, and says which languages had to be sampled.

        Args:
          settings: alpha, maximum_symbols, threads and progress.
          table: makes words of text; None takes the `SymbolTable` of the base.

        Raises:
          SeallmError: no text.
        """
        table = table or SymbolTable(base)
        named = [*texts_by_language.items(), ("protected text", protected_texts)]
        words: list[Words] = []
        progress = settings.progress
        for number, (name, texts) in enumerate(named):
            with progress.task(f"reading {name}") as advance:
                used = sum(len(block.symbols) for block in words)  # what small languages leave is for the next
                share = max((settings.maximum_symbols - used) // (len(named) - number), 1 << 10)
                words.append(table.words(texts, threads=settings.threads, maximum_symbols=share, advance=advance))
            if words[-1].threshold > 1:
                progress.say(
                    f"{name} has more different words than fit in {share:,} symbols: a sample in which words seen "
                    f"less than {words[-1].threshold} times stand for as many; raise maximum_symbols for exact counts"
                )
        if not any(block.size for block in words[:-1]):
            raise SeallmError("cannot extend the vocabulary: there is no text")
        return cls(table, tuple(texts_by_language), words, [*_factors(words[:-1], settings.alpha), None])

    @classmethod
    def of_pieces(cls, base: SentencePieceTokenizer, models: Sequence[Sequence[str]]) -> TrainingWords:
        """Vocabularies in the place of text: piece number k of each counts 1 / k as often as its first (Zipf)."""
        table = SymbolTable(base)
        words = [
            table.words_of_pieces({piece: max(1, len(pieces) // rank) for rank, piece in enumerate(pieces, start=1)})
            for pieces in models
        ]
        nothing = table.words_of_pieces({})
        return cls(table, tuple("" for _ in models), [*words, nothing], [*(1.0 for _ in models), None])


def _factors(words: Sequence[Words], alpha: float) -> list[float]:
    """Weight of one occurrence per language, so that a language counts as size ** alpha; 1 for the largest."""
    largest = max(block.size for block in words)
    return [(max(block.size, 1) / largest) ** (alpha - 1) for block in words]
