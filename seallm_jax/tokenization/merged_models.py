"""Extension with the pieces of separately trained vocabularies: chosen by gain, or appended as they are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.assemble import ambiguous, assemble_on_top
from seallm_jax.tokenization.continued_bpe import continued_bpe
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.learn import learn_tokenizer
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
    base: SentencePieceTokenizer, models: Sequence[Sequence[str]], settings: ExtensionSettings
) -> Extension:
    """Merges vocabularies without text: pieces weigh by their rank in their own model, and teach like words."""
    training = TrainingWords.of_pieces(base, [characters_first(pieces) for pieces in models])
    counted_once = dataclasses.replace(settings, minimum_frequency=1, protected_ratio=0.0)
    return continued_bpe(base, training, counted_once, allowed=frozenset().union(*models), method="merge")


def append_pieces_as_they_are(
    base: SentencePieceTokenizer,
    models: Sequence[Sequence[str]],
    settings: ExtensionSettings,
    *,
    texts: Sequence[str] = (),
) -> Extension:
    """The append-only merge of Chinese-LLaMA: every piece that the base lacks, in the order of its own model.

    The models' characters come first, since pieces need them. The new merges come before the base's. Some pieces may be
    out of reach, and text of the base's languages changes unless its script is protected.

    Args:
      texts: for the frequencies of the record.
    """
    guard, known = settings.guard, base.mergeable_pieces
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*map(characters_first, models)))
    found = dict.fromkeys(piece for piece in ranked if piece and base.id_of(piece) is None and guard(piece))
    everything = known.keys() | found.keys()
    # SentencePiece makes pieces of characters that are none themselves, `tokenizers` does not
    pieces = [
        piece
        for piece in found
        if not ambiguous(piece, everything) and all(character in everything for character in piece)
    ]
    places = settings.places
    if settings.strict and len(pieces) < places:
        raise SeallmError(f"the models have {len(pieces)} pieces that the base lacks, not {places}")
    pieces = pieces[:places]
    excess = settings.excess(base.size + len(settings.control) + len(pieces))
    pieces = pieces[: len(pieces) - excess] if excess <= len(pieces) else pieces
    if len(pieces) < places:
        settings.progress.say(f"the models have {len(pieces)} pieces that the base lacks, not {places}")
    tokenizer = assemble_on_top(base, settings.control, pieces)
    counts = np.zeros(tokenizer.size, np.int64)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        for ids in tokenizer.encode_batch(texts[start : start + _TEXTS_AT_ONCE], threads=settings.threads):
            counts += np.bincount(ids, minlength=tokenizer.size)
    return Extension.of(
        base,
        tokenizer,
        settings.control,
        pieces,
        frequencies=counts[tokenizer.size - len(pieces) :].tolist(),
        languages=[""] * len(pieces),
        method="append",
    )
