"""What a vocabulary is worth to each language, before and after an extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seallm_jax.tokenization.fertility import fertility_table
from seallm_jax.tokenization.reachability import unreachable_tokens
from seallm_jax.tokenization.tokenizer import Tokenizer

_EXAMPLES = 20


def vocabulary_report(
    base: Tokenizer,
    extended: Tokenizer,
    heldout_by_language: Mapping[str, Sequence[str]],
    parallel: Mapping[str, Sequence[str]] | None = None,
    *,
    reference: str = "en",
    threads: int = 0,
) -> dict[str, Any]:
    """The whole report as JSON-like values.

    Returns:
      `fertility`: the rows of `fertility_table`; `base` and `extended`: size, digest, number of unreachable tokens and
      some of them; `english_unchanged`: share of the reference language's lines that keep their ids, None without such
      text.

    Raises:
      SeallmError: nothing to measure, or aligned text that is none.
    """
    rows = fertility_table(base, extended, heldout_by_language, parallel, reference=reference, threads=threads)
    unchanged = {row["language"]: row["unchanged"] for row in rows}
    described = _describe(base)
    return {
        "base": described,
        "extended": described if extended is base else _describe(extended),
        "english_unchanged": unchanged.get(reference),
        "fertility": rows,
    }


def _describe(tokenizer: Tokenizer) -> dict[str, Any]:
    unreachable = unreachable_tokens(tokenizer)
    return {
        "size": tokenizer.size,
        "digest": tokenizer.digest,
        "unreachable": len(unreachable),
        "unreachable_examples": [tokenizer.piece(index) for index in unreachable[:_EXAMPLES]],
    }
