"""SeaLLMs' Algorithm 1: which pieces of a donor vocabulary a text can use on top of the base tokenizer."""

from __future__ import annotations

import collections
from collections.abc import Sequence, Set

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.training_words import TrainingWords


def vocab_extend(
    training: TrainingWords, donor: Set[str], known: Set[str], *, minimum_frequency: int, progress: Progress
) -> frozenset[str]:
    """VocabExtend of SeaLLMs (arXiv 2312.00738, Algorithm 1): the new pieces with a count of `minimum_frequency`.

    The base tokenizes every word, and ExhaustiveMerge replaces the first two neighbours whose text is a piece of the
    donor, again and again; what it makes on the way counts, too. A character that the base writes as bytes is a piece
    when the donor has it.

    The vocabulary grows during the pass in the paper: a later document is tokenized with the pieces found so far. Here
    the base with these pieces tokenizes like the base followed by the same merges, so that neither the order of the
    documents nor how often a word was seen changes the outcome, and each different word is done once.

    Args:
      training: words of all languages; protected text is not looked at.
      donor: the donor's pieces, with U+2581 for a space.
      known: the base's pieces, which are not new.
      minimum_frequency: m of the paper.
      progress: reports words.
    """
    frequency: collections.Counter[str] = collections.Counter()
    blocks = training.words[: len(training.languages)]
    with progress.task("merging with the donor", total=sum(len(block.lengths) for block in blocks)) as advance:
        for block in blocks:
            start = 0
            for length, count in zip(block.lengths.tolist(), block.counts.tolist(), strict=True):
                symbols = block.symbols[start : start + length].tolist()
                start += length
                parts: list[str | None] = []
                for symbol in symbols:
                    text = training.table.piece(symbol)
                    foreign = symbol >= training.table.base_size
                    if foreign and (text not in donor or text == SPACE):
                        parts.append(None)
                        continue
                    parts.append(text)
                    if foreign:
                        frequency[text] += count
                for made in exhaustive_merge(parts, donor):
                    frequency[made] += count
            advance(len(block.lengths))
    return frozenset(text for text, count in frequency.items() if count >= minimum_frequency and text not in known)


def exhaustive_merge(parts: Sequence[str | None], donor: Set[str]) -> list[str]:
    """ExhaustiveMerge: the pieces made, in order, when neighbours that spell a donor's piece are joined, first ones
    first, until none are left. None joins nothing."""
    left: list[str | None] = []  # no two neighbours of these can be joined
    right = list(reversed(parts))
    made = []
    while right:
        here = right.pop()
        if left and here is not None and left[-1] is not None and left[-1] + here in donor:
            joined = left.pop() + here  # type: ignore[operator]
            made.append(joined)
            right.append(joined)  # it may join what stands before it now, and that comes first
        else:
            left.append(here)
    return made
