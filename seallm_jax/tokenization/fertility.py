"""Fertility: how many tokens a text costs, by language, before and after an extension."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import language_name
from seallm_jax.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Fertility:
    """Size of some text in tokens (without BOS and EOS), characters (code points) and UTF-8 bytes."""

    documents: int
    tokens: int
    characters: int
    bytes: int

    @property
    def tokens_per_character(self) -> float:
        """0 for no text."""
        return self.tokens / self.characters if self.characters else 0.0

    @property
    def tokens_per_byte(self) -> float:
        """0 for no text."""
        return self.tokens / self.bytes if self.bytes else 0.0


def measure(tokenizer: Tokenizer, texts: Iterable[str], *, threads: int = 0) -> Fertility:
    """Fertility of a tokenizer on texts."""
    texts = list(texts)
    encoded = tokenizer.encode_batch(texts, threads=threads)
    return Fertility(
        documents=len(texts),
        tokens=sum(len(ids) for ids in encoded),
        characters=sum(len(text) for text in texts),
        bytes=sum(len(text.encode()) for text in texts),
    )


def identity_rate(base: Tokenizer, extended: Tokenizer, texts: Iterable[str], *, threads: int = 0) -> float:
    """Share of the non-empty lines of `texts` that keep their ids; 1 for no text."""
    lines = [line for text in texts for line in text.split("\n") if line]
    if not lines:
        return 1.0
    pairs = zip(base.encode_batch(lines, threads=threads), extended.encode_batch(lines, threads=threads), strict=True)
    return sum(len(old) == len(new) and bool((old == new).all()) for old, new in pairs) / len(lines)


def fertility_table(
    base: Tokenizer,
    extended: Tokenizer,
    heldout_by_language: Mapping[str, Sequence[str]],
    parallel: Mapping[str, Sequence[str]] | None = None,
    *,
    reference: str = "en",
    threads: int = 0,
) -> list[dict[str, Any]]:
    """One row a language, sorted by code: what its text costs under the base and under the extended tokenizer.

    Args:
      heldout_by_language: text that no tokenizer has seen.
      parallel: aligned sentences, language -> sentences. The `relative` columns are tokens over those of the same
        sentences in `reference` under the base tokenizer, as in SeaLLMs' Table 1; None without aligned text.

    Returns:
      Rows with language, name, documents, characters, bytes, and for each of base and extended: tokens,
      tokens_per_character, tokens_per_byte, relative; and ratio (extended / base tokens) and unchanged (share of lines
      that keep their ids).

    Raises:
      SeallmError: nothing to measure, or aligned text without the reference language or of different lengths.
    """
    relative = _relative(base, extended, parallel or {}, reference, threads)
    rows = []
    for language in sorted({*heldout_by_language, *relative}):
        texts = list(heldout_by_language.get(language, ()))
        before, after = measure(base, texts, threads=threads), measure(extended, texts, threads=threads)
        base_relative, extended_relative = relative.get(language, (None, None))
        rows.append(
            {
                "language": language,
                "name": language_name(language),
                "documents": before.documents,
                "characters": before.characters,
                "bytes": before.bytes,
                "base_tokens": before.tokens,
                "extended_tokens": after.tokens,
                "base_tokens_per_character": before.tokens_per_character,
                "extended_tokens_per_character": after.tokens_per_character,
                "base_tokens_per_byte": before.tokens_per_byte,
                "extended_tokens_per_byte": after.tokens_per_byte,
                "ratio": after.tokens / before.tokens if before.tokens else None,
                "base_relative": base_relative,
                "extended_relative": extended_relative,
                "unchanged": identity_rate(base, extended, texts, threads=threads) if texts else None,
            }
        )
    if not rows:
        raise SeallmError("there is no text to measure fertility on")
    return rows


def _relative(
    base: Tokenizer, extended: Tokenizer, parallel: Mapping[str, Sequence[str]], reference: str, threads: int
) -> dict[str, tuple[float, float]]:
    if not parallel:
        return {}
    if reference not in parallel:
        raise SeallmError(f"aligned text has {', '.join(parallel)} but not the reference language {reference!r}")
    lengths = {language: len(sentences) for language, sentences in parallel.items()}
    if len(set(lengths.values())) > 1:
        raise SeallmError(f"aligned text must have as many sentences in every language, got {lengths}")
    unit = measure(base, parallel[reference], threads=threads).tokens
    if unit == 0:
        raise SeallmError(f"aligned text in the reference language {reference!r} is empty")
    return {
        language: (
            measure(base, sentences, threads=threads).tokens / unit,
            measure(extended, sentences, threads=threads).tokens / unit,
        )
        for language, sentences in parallel.items()
    }
