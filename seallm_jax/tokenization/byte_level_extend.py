"""Continued BPE on a byte-level base: new merges behind the old ones, new ids behind the old ones.

The merges of `tokenizers` are pairs of pieces, not pieces. A new piece gets every pair of known pieces that spells it,
all at its own place in the order, so that it comes about whichever way its parts have come about; that is how
`MergeLearner` counts. Old pairs come first and are unchanged: text without a new piece keeps its ids.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import from_alphabet
from seallm_jax.tokenization.byte_level_pattern import mark_aware, pattern_drift
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.byte_level_words import ByteLevelTable
from seallm_jax.tokenization.chat import PAD
from seallm_jax.tokenization.continued_bpe import MAXIMUM_PIECE_LENGTH, learn_extension
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.training_words import TrainingWords

PRETOKENIZERS = ("base", "mark_aware")
_UTF8_LENGTH = 4  # bytes of a character at most
_SAMPLE = 200  # documents per language on which the drift is measured


def extend_byte_level(
    base: ByteLevelTokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    protected_texts: Iterable[str],
    settings: ExtensionSettings,
    *,
    pretokenizer: str | None = None,
) -> Extension:
    """Learns merges on top of a byte-level tokenizer's own. See `extend_tokenizer` for the texts.

    New pieces begin with a character; few end within one: what characters are made of, and joints of the base's own
    pieces that do (36 of 16,512 with Qwen's tokenizer, 258 with tekken, on 15 languages).

    Args:
      pretokenizer: `base` (the default) keeps the pattern that cuts text into words; `mark_aware` does not let it cut
        at combining marks (see `byte_level_pattern`), which changes ids of some old text, too; `progress` says of how
        many lines. Measured with Qwen's tokenizer and 16,512 tokens, it takes the text of Thai, Khmer, Burmese and
        Tamil from 1/1.3, 1/2.2, 1/2.7 and 1/2.2 of the base's tokens to 1/1.9, 1/3.1, 1/4.3 and 1/3.3.

    Returns:
      The extension; its pieces are in the byte alphabet, and the source ids are those that the base's merges make of a
      piece.
    """
    progress = settings.progress
    if pretokenizer not in (None, *PRETOKENIZERS):
        raise SeallmError(f"no pretokenizer {pretokenizer!r}; use one of {', '.join(PRETOKENIZERS)}")
    ground = mark_aware(base) if pretokenizer == "mark_aware" else base
    if pretokenizer == "mark_aware" and ground is base:
        progress.say("the base's pattern keeps marks with their letters already; it stays as it is")
    for note in ground.notes:
        progress.say(note)
    samples: dict[str, list[str]] = {language: [] for language in texts_by_language}
    training = TrainingWords.read(
        ground,
        {language: _remembered(texts, samples[language]) for language, texts in texts_by_language.items()},
        protected_texts,
        settings,
        table=ByteLevelTable(ground),
    )
    if ground is not base:
        drift = pattern_drift(base, samples, threads=settings.threads)
        shares = ", ".join(f"{language} {share:.1%}" for language, share in drift.items())
        progress.say(f"lines whose old ids change because of the mark-aware pattern alone: {shares}")
    made = {piece for merge in base.spec["model"]["merges"] for piece in (*merge, "".join(merge))}
    return learn_extension(
        base,
        training,
        settings,
        mergeable={piece: index for piece, index in base.mergeable_pieces.items() if len(piece) == 1 or piece in made},
        maximum_length=MAXIMUM_PIECE_LENGTH * _UTF8_LENGTH,
        admits=_admission(base, settings.guard),
        extended=functools.partial(_extended, ground, settings.control),
        method="continued_bpe",
    )


def _remembered(texts: Iterable[str], sample: list[str]) -> Iterator[str]:
    """The texts, the first of which are put into `sample` on the way."""
    for text in texts:
        if len(sample) < _SAMPLE:
            sample.append(text)
        yield text


def _admission(base: ByteLevelTokenizer, guard: Callable[[str], bool]) -> Callable[[str], bool]:
    """Which pieces may be made: up to 16 characters, the last of them perhaps not whole; none that the base has.

    That a piece may end within a character but not begin within one costs next to nothing against no rule at all.
    Whole characters only would cost Lao (Qwen) and Khmer (tekken) 18 % more tokens: the base's own pieces cut there.
    """
    old = base.spec["model"]["vocab"]

    def admits(piece: str) -> bool:
        data = from_alphabet(piece)
        if data[0] & 0xC0 == 0x80 or piece in old:  # begins within a character
            return False
        try:
            text, rest = data.decode(), b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return False
            text, rest = data[: error.start].decode(), data[error.start :]
        return len(text) < MAXIMUM_PIECE_LENGTH + (not rest) and (
            guard(text) or (bool(rest) and _may_become(rest, guard))
        )

    return functools.lru_cache(maxsize=1 << 18)(admits)


def _may_become(beginning: bytes, guard: Callable[[str], bool]) -> bool:
    """Whether the beginning of a character's UTF-8 can become one that the guard lets pass."""
    missing = (2 if beginning[0] < 0xE0 else 3 if beginning[0] < 0xF0 else 4) - len(beginning)
    endings = (bytes([byte, *[0x80] * (missing - 1)]) for byte in range(0x80, 0xC0))
    return any(guard((beginning + ending).decode("utf-8", "ignore")) for ending in endings)


def _extended(ground: ByteLevelTokenizer, control: Sequence[str], pieces: Sequence[str]) -> ByteLevelTokenizer:
    config = ground.config | ({"pad_token": PAD} if PAD in control else {})
    template = ground.chat_template if ground.has_own_template else None
    spec = _extended_spec(ground, control, pieces)
    return ByteLevelTokenizer(spec, config, chat_template=template, notes=ground.notes)


def _extended_spec(base: ByteLevelTokenizer, control: Sequence[str], pieces: Sequence[str]) -> dict[str, Any]:
    spec, model = base.spec, base.spec["model"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": index, "content": token} | flags for index, token in enumerate(control, start=base.size)]
    # the library numbers added tokens that the vocabulary lacks itself, from the size of the vocabulary on
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in (*spec["added_tokens"], *added)}
    vocabulary |= {piece: index for index, piece in enumerate(pieces, start=base.size + len(control))}
    known = base.mergeable_pieces.keys() | set(pieces)
    merges = [
        [piece[:cut], piece[cut:]]
        for piece in pieces
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in known and piece[cut:] in known
    ]
    return spec | {
        "added_tokens": [*spec["added_tokens"], *added],
        "model": model | {"vocab": vocabulary, "merges": [*model["merges"], *merges]},
    }
