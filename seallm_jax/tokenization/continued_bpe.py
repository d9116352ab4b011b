"""Continued BPE: new merges on top of the old ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Container, Mapping, Sequence

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.assemble import append_merges, assemble
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.merges import LearnedPiece, MergeLearner
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from seallm_jax.tokenization.training_words import TrainingWords

MAXIMUM_PIECE_LENGTH = 16  # characters, as in SentencePiece


def continued_bpe(
    base: SentencePieceTokenizer,
    training: TrainingWords,
    settings: ExtensionSettings,
    *,
    method: str,
    allowed: Container[str] | None = None,
) -> Extension:
    """Learns merges on top of a SentencePiece base's own (arXiv 2512.03989).

    Args:
      method: name for the record.
      allowed: the pieces that may be made; None for all.
    """
    guard = settings.guard
    return learn_extension(
        base,
        training,
        settings,
        mergeable=base.mergeable_pieces,
        maximum_length=MAXIMUM_PIECE_LENGTH,
        admits=guard if allowed is None else lambda text: text in allowed and guard(text),
        extended=functools.partial(append_merges, base, settings.control),
        method=method,
    )


def learn_extension(
    base: Tokenizer,
    training: TrainingWords,
    settings: ExtensionSettings,
    *,
    mergeable: Mapping[str, int],
    maximum_length: int,
    admits: Callable[[str], bool],
    extended: Callable[[Sequence[str]], Tokenizer],
    method: str,
) -> Extension:
    """Learns up to `settings.size` tokens from words, the chat tokens among them, and builds the extended tokenizer.

    Merges are made in the order of their gain, each of two pieces that exist by then, and the extended tokenizer makes
    them in this order; so every new piece comes out of its own text, whatever limits what may be made.

    Args:
      base: what is extended; the record's source ids are its.
      mergeable: the base's pieces that take part in merges, with their ids.
      maximum_length: characters per new piece, as the vocabulary writes it.
      admits: pieces for which it is false are never made.
      extended: the tokenizer with the chat tokens and these pieces behind the base's own.
      method: name for the record.

    Raises:
      SeallmError: impossible budgets, or, when `settings.strict`, too little text.
    """
    progress, minimum = settings.progress, settings.minimum_frequency
    budgets = budget_list(training.languages, settings.budgets)
    learner = MergeLearner(
        training.table,
        mergeable,
        training.words,
        training.factors,
        protected_ratio=settings.protected_ratio,
        size=settings.places,
        minimum_frequency=minimum,
        maximum_length=maximum_length,
        budgets=[*budgets, None],
        admits=admits,
    )
    with progress.task("learning new tokens", total=settings.places) as advance:
        learned = prune(learner.learn(advance), minimum)
    learned, tokenizer = assemble(learned, extended)
    excess = settings.excess(tokenizer.size)
    if excess and excess <= len(learned):  # the last pieces are part of no other
        learned, tokenizer = assemble(learned[:-excess], extended)
    if len(learned) < settings.places and not any(budget is not None for budget in budgets):
        shortage = f"the text supports {len(learned)} new tokens with frequency {minimum}, not {settings.places}"
        if settings.strict:
            raise SeallmError(f"{shortage}; give more text, a smaller size or a lower minimum frequency")
        progress.say(shortage)
    return Extension.of(
        base,
        tokenizer,
        settings.control,
        [piece.text for piece in learned],
        frequencies=[piece.frequency for piece in learned],
        languages=[training.languages[piece.language] for piece in learned],
        method=method,
    )


def budget_list(languages: tuple[str, ...], budgets: Mapping[str, int]) -> list[int | None]:
    unknown = sorted(set(budgets) - set(languages))
    if unknown:
        raise SeallmError(f"a budget for {', '.join(unknown)}, but the text is in {', '.join(languages)}")
    if any(budget < 0 for budget in budgets.values()):
        raise SeallmError(f"budgets must not be negative: {dict(budgets)}")
    return [budgets.get(language) for language in languages]


def prune(learned: list[LearnedPiece], minimum_frequency: int) -> list[LearnedPiece]:
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
