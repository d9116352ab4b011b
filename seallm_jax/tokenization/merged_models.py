"""Extension with the pieces of separately trained vocabularies: chosen by gain, or appended as they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.assemble import ambiguous, assemble_on_top, missing_chat_tokens
from seallm_jax.tokenization.continued_bpe import learn_extension
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.scripts import script_guard
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.training_words import TrainingWords

_ROOM = 3  # a model trained for its new pieces also has many that the base or another model has
_TEXTS_AT_ONCE = 1024


def characters_first(pieces: Sequence[str]) -> list[str]:
    """SentencePiece's BPE lists its characters after all merges; everything else is made of them."""
    return sorted(pieces, key=lambda piece: len(piece) > 1)


def train_models(
    texts_by_language: Mapping[str, Sequence[str]], size: int, *, alpha: float, progress: Progress
) -> list[tuple[str, ...]]:
    """One SentencePiece model a language, as Compass trains them; their pieces in the order of learning.

    A language's share of the `size` pieces in all grows with its bytes ** alpha.
    """
    weights = {code: sum(len(text.encode()) for text in texts) ** alpha for code, texts in texts_by_language.items()}
    total = sum(weights.values())
    if not total:
        raise SeallmError("cannot train the models to merge: there is no text")
    return [
        train_model(texts, int(_ROOM * size * weights[code] / total), progress=progress)
        for code, texts in texts_by_language.items()
        if texts
    ]


def train_model(texts: Sequence[str], size: int, *, progress: Progress) -> tuple[str, ...]:
    """The pieces of a SentencePiece model trained on the texts: about `size` beside their characters."""
    characters = len({character for text in texts for character in text})
    with progress.task("training a model", total=size) as advance:
        # silent: that a small language supports fewer pieces is expected here
        pieces = tuple(learn_tokenizer(texts, 262 + characters + size, progress=Progress.silent()).mergeable_pieces)
        advance(size)
    return pieces


def merge_pieces(
    base: SentencePieceTokenizer,
    models: Sequence[Sequence[str]],
    size: int,
    *,
    protected_scripts: Iterable[str],
    pad_to: int,
    strict: bool,
    progress: Progress,
) -> Extension:
    """Merges vocabularies without text: pieces weigh by their rank in their own model, and teach like words."""
    control = missing_chat_tokens(base, size)
    training = TrainingWords.of_pieces(base, [characters_first(pieces) for pieces in models])
    allowed, guard = frozenset(itertools.chain.from_iterable(models)), script_guard(protected_scripts)
    return learn_extension(
        base,
        training,
        size,
        control=control,
        admits=lambda text: text in allowed and guard(text),
        budgets=[None] * len(models),
        minimum_frequency=1,
        protected_ratio=0.0,
        pad_to=pad_to,
        strict=strict,
        progress=progress,
        method="merge",
    )


def append_pieces_as_they_are(
    base: SentencePieceTokenizer,
    models: Sequence[Sequence[str]],
    size: int,
    *,
    texts: Sequence[str] = (),
    protected_scripts: Iterable[str] = (),
    pad_to: int = 0,
    strict: bool = False,
    threads: int = 0,
    progress: Progress,
) -> Extension:
    """The append-only merge of Chinese-LLaMA: every piece that the base lacks, in the order of its own model.

    The models' characters come first, since pieces need them. The new merges come before the base's. Some pieces may be
    out of reach, and text of the base's languages changes unless its script is protected.

    Args:
      texts: for the frequencies of the record.
    """
    control = missing_chat_tokens(base, size)
    guard, known = script_guard(protected_scripts), base.mergeable_pieces
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*map(characters_first, models)))
    found = dict.fromkeys(piece for piece in ranked if piece and base.id_of(piece) is None and guard(piece))
    everything = known.keys() | found.keys()
    # SentencePiece makes pieces of characters that are none themselves, `tokenizers` does not
    pieces = [
        piece
        for piece in found
        if not ambiguous(piece, everything) and all(character in everything for character in piece)
    ]
    if strict and len(pieces) < size - len(control):
        raise SeallmError(f"the models have {len(pieces)} pieces that the base lacks, not {size - len(control)}")
    pieces = pieces[: size - len(control)]
    excess = (base.size + len(control) + len(pieces)) % pad_to if pad_to else 0
    pieces = pieces[: len(pieces) - excess] if excess <= len(pieces) else pieces
    if len(pieces) < size - len(control):
        progress.say(f"the models have {len(pieces)} pieces that the base lacks, not {size - len(control)}")
    tokenizer = assemble_on_top(base, control, pieces)
    counts = np.zeros(tokenizer.size, np.int64)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        for ids in tokenizer.encode_batch(texts[start : start + _TEXTS_AT_ONCE], threads=threads):
            counts += np.bincount(ids, minlength=tokenizer.size)
    new = (*control, *pieces)
    return Extension(
        tokenizer=tokenizer,
        base_size=base.size,
        base_digest=base.digest,
        new_pieces=new,
        source_ids=[base.encode_fragment(piece.replace(SPACE, " ")) for piece in new],
        frequencies=tuple(counts[base.size :].tolist()),
        languages=("",) * len(new),
        method="append",
    )
