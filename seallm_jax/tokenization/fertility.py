"""Fertility: how many tokens a text costs, by language, before and after an extension."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import language_name
from seallm_jax.tokenization.tokenizer import Tokenizer

RENYI_ORDER = 2.5


@dataclasses.dataclass(frozen=True)
class Fertility:
    """Size of some text in tokens (without BOS and EOS), characters (code points) and UTF-8 bytes.

    Attributes:
      byte_tokens: tokens that hold only a part of a character's bytes.
      renyi_efficiency: entropy of order 2.5 of the tokens' distribution, over the logarithm of the vocabulary's size
        (arXiv 2306.16842): 1 when all tokens are equally frequent.
    """

    documents: int
    tokens: int
    characters: int
    bytes: int
    byte_tokens: int
    renyi_efficiency: float

    @property
    def tokens_per_character(self) -> float:
        """0 for no text."""
        return self.tokens / self.characters if self.characters else 0.0

    @property
    def tokens_per_byte(self) -> float:
        """0 for no text."""
        return self.tokens / self.bytes if self.bytes else 0.0

    @property
    def byte_share(self) -> float:
        """Share of tokens that are only a part of a character: byte fallback. 0 for no text."""
        return self.byte_tokens / self.tokens if self.tokens else 0.0


def measure(tokenizer: Tokenizer, texts: Iterable[str], *, threads: int = 0) -> Fertility:
    """Fertility of a tokenizer on texts."""
    texts = list(texts)
    counts = np.zeros(tokenizer.size, np.int64)
    for ids in tokenizer.encode_batch(texts, threads=threads):
        counts += np.bincount(ids, minlength=tokenizer.size)
    used = np.flatnonzero(counts)
    return Fertility(
        documents=len(texts),
        tokens=int(counts.sum()),
        characters=sum(len(text) for text in texts),
        bytes=sum(len(text.encode()) for text in texts),
        byte_tokens=int(counts[[index for index in used.tolist() if _is_fragment(tokenizer, index)]].sum()),
        renyi_efficiency=renyi_efficiency(counts[used], tokenizer.size),
    )


def renyi_efficiency(counts: np.ndarray, size: int, *, order: float = RENYI_ORDER) -> float:
    """Renyi entropy of the distribution with these counts, over log(size) (arXiv 2306.16842). 0 for no counts.

    Args:
      counts: occurrences of each token, 1-D, without zeros.
      size: of the vocabulary.
      order: of the entropy, not 1.
    """
    if len(counts) == 0 or size < 2:
        return 0.0
    shares = counts / counts.sum()
    return float(np.log((shares**order).sum()) / (1 - order) / np.log(size)) + 0.0


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
      tokens_per_character, tokens_per_byte, byte_share, renyi_efficiency, relative; and ratio (extended / base tokens)
      and unchanged (share of lines that keep their ids).

    Raises:
      SeallmError: nothing to measure, or aligned text without the reference language or of different lengths.
    """
    relative = _relative(base, extended, parallel or {}, reference, threads)
    rows = []
    for language in sorted({*heldout_by_language, *relative}):
        texts = list(heldout_by_language.get(language, ()))
        before, after = measure(base, texts, threads=threads), measure(extended, texts, threads=threads)
        row: dict[str, Any] = {
            "language": language,
            "name": language_name(language),
            "documents": before.documents,
            "characters": before.characters,
            "bytes": before.bytes,
        }
        for name in ("tokens", "tokens_per_character", "tokens_per_byte", "byte_share", "renyi_efficiency"):
            row[f"base_{name}"], row[f"extended_{name}"] = getattr(before, name), getattr(after, name)
        row["ratio"] = after.tokens / before.tokens if before.tokens else None
        row["base_relative"], row["extended_relative"] = relative.get(language, (None, None))
        row["unchanged"] = identity_rate(base, extended, texts, threads=threads) if texts else None
        rows.append(row)
    if not rows:
        raise SeallmError("there is no text to measure fertility on")
    return rows


def _is_fragment(tokenizer: Tokenizer, index: int) -> bool:
    try:
        tokenizer.piece_bytes(index).decode()
    except UnicodeDecodeError:
        return True
    return False


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
    unit = _tokens(base, parallel[reference], threads)
    if unit == 0:
        raise SeallmError(f"aligned text in the reference language {reference!r} is empty")
    return {
        language: (_tokens(base, sentences, threads) / unit, _tokens(extended, sentences, threads) / unit)
        for language, sentences in parallel.items()
    }


def _tokens(tokenizer: Tokenizer, texts: Sequence[str], threads: int) -> int:
    return sum(map(len, tokenizer.encode_batch(texts, threads=threads)))
