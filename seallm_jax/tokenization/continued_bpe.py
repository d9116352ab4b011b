"""Continued BPE on a SentencePiece base: new merges on top of the old ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.assemble import assemble, missing_chat_tokens
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.merges import LearnedPiece, MergeLearner
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.scripts import script_guard
from seallm_jax.tokenization.segments import MAXIMUM_SYMBOLS
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.training_words import TrainingWords

MAXIMUM_PIECE_LENGTH = 16  # characters, as in SentencePiece


def continued_bpe(
    base: SentencePieceTokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    size: int,
    *,
    alpha: float = 0.6,
    minimum_frequency: int = 3,
    budgets: Mapping[str, int] | None = None,
    protected_texts: Iterable[str] = (),
    protected_ratio: float = 0.02,
    protected_scripts: Iterable[str] = (),
    pad_to: int = 0,
    strict: bool = False,
    maximum_symbols: int = MAXIMUM_SYMBOLS,
    threads: int = 0,
    progress: Progress | None = None,
    candidates: Callable[[TrainingWords], Container[str]] | None = None,
    method: str = "continued_bpe",
) -> Extension:
    """Learns merges on top of the base tokenizer's own (arXiv 2512.03989). See `extend_tokenizer` for the arguments.

    Args:
      candidates: the pieces that may be made, found in the words; None for all.
      method: name for the record.
    """
    progress = progress or Progress.silent()
    control = missing_chat_tokens(base, size)
    guard = script_guard(protected_scripts)
    training = TrainingWords.read(
        base,
        texts_by_language,
        protected_texts=protected_texts,
        alpha=alpha,
        maximum_symbols=maximum_symbols,
        threads=threads,
        progress=progress,
    )
    allowed = candidates(training) if candidates else None
    return learn_extension(
        base,
        training,
        size,
        control=control,
        admits=guard if allowed is None else lambda text: text in allowed and guard(text),
        budgets=budget_list(training.languages, budgets or {}),
        minimum_frequency=minimum_frequency,
        protected_ratio=protected_ratio,
        pad_to=pad_to,
        strict=strict,
        progress=progress,
        method=method,
    )


def learn_extension(
    base: SentencePieceTokenizer,
    training: TrainingWords,
    size: int,
    *,
    control: list[str],
    admits: Callable[[str], bool],
    budgets: list[int | None],
    minimum_frequency: int,
    protected_ratio: float,
    pad_to: int,
    strict: bool,
    progress: Progress,
    method: str,
) -> Extension:
    """Learns up to `size` tokens from words, the control tokens among them, and builds the extended tokenizer.

    Merges are made in the order of their gain, each of two pieces that exist by then, and become SentencePiece scores
    in this order; so every new piece comes out of its own text, whatever limits the candidates.
    """
    wanted = size - len(control)
    learner = MergeLearner(
        training.table,
        base.mergeable_pieces,
        training.words,
        training.factors,
        protected_ratio=protected_ratio,
        size=wanted,
        minimum_frequency=minimum_frequency,
        maximum_length=MAXIMUM_PIECE_LENGTH,
        budgets=[*budgets, None],
        admits=admits,
    )
    with progress.task("learning new tokens", total=wanted) as advance:
        learned = prune(learner.learn(advance), minimum_frequency)
    learned, tokenizer = assemble(base, control, learned)
    excess = tokenizer.size % pad_to if pad_to else 0
    if excess and excess <= len(learned):  # the last pieces are part of no other
        learned, tokenizer = assemble(base, control, learned[:-excess])
    if len(learned) < wanted and not any(budget is not None for budget in budgets):
        shortage = f"the text supports {len(learned)} new tokens with frequency {minimum_frequency}, not {wanted}"
        if strict:
            raise SeallmError(f"{shortage}; give more text, a smaller size or a lower minimum frequency")
        progress.say(shortage)
    pieces = (*control, *(piece.text for piece in learned))
    return Extension(
        tokenizer=tokenizer,
        base_size=base.size,
        base_digest=base.digest,
        new_pieces=pieces,
        source_ids=[base.encode_fragment(piece.replace(SPACE, " ")) for piece in pieces],
        frequencies=(*(0 for _ in control), *(piece.frequency for piece in learned)),
        languages=(*("" for _ in control), *(training.languages[piece.language] for piece in learned)),
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
