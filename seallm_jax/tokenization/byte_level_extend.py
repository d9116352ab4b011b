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
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.assemble import missing_chat_tokens
from seallm_jax.tokenization.byte_alphabet import from_alphabet
from seallm_jax.tokenization.byte_level_pattern import mark_aware, pattern_drift
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer, backend
from seallm_jax.tokenization.byte_level_words import ByteLevelTable
from seallm_jax.tokenization.chat import PAD
from seallm_jax.tokenization.continued_bpe import MAXIMUM_PIECE_LENGTH, budget_list, prune
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.merges import LearnedPiece, MergeLearner
from seallm_jax.tokenization.scripts import script_guard
from seallm_jax.tokenization.segments import MAXIMUM_SYMBOLS
from seallm_jax.tokenization.training_words import TrainingWords

PRETOKENIZERS = ("base", "mark_aware")
_UTF8_LENGTH = 4  # bytes of a character at most
_SAMPLE = 200  # documents per language on which the drift is measured


def extend_byte_level(
    base: ByteLevelTokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    size: int,
    *,
    pretokenizer: str | None = None,
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
) -> Extension:
    """Learns merges on top of a byte-level tokenizer's own. See `extend_tokenizer` for the other arguments.

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
    progress = progress or Progress.silent()
    if pretokenizer not in (None, *PRETOKENIZERS):
        raise SeallmError(f"no pretokenizer {pretokenizer!r}; use one of {', '.join(PRETOKENIZERS)}")
    control = missing_chat_tokens(base, size)
    ground = mark_aware(base) if pretokenizer == "mark_aware" else base
    if pretokenizer == "mark_aware" and ground is base:
        progress.say("the base's pattern keeps marks with their letters already; it stays as it is")
    for note in ground.notes:
        progress.say(note)
    samples: dict[str, list[str]] = {language: [] for language in texts_by_language}
    training = TrainingWords.read(
        ground,
        {language: _remembered(texts, samples[language]) for language, texts in texts_by_language.items()},
        protected_texts=protected_texts,
        alpha=alpha,
        maximum_symbols=maximum_symbols,
        threads=threads,
        progress=progress,
        table=ByteLevelTable(ground),
    )
    if ground is not base:
        drift = pattern_drift(base, samples, threads=threads)
        shares = ", ".join(f"{language} {share:.1%}" for language, share in drift.items())
        progress.say(f"lines whose old ids change because of the mark-aware pattern alone: {shares}")
    budget = budget_list(training.languages, budgets or {})
    made = {piece for merge in base.spec["model"]["merges"] for piece in merge} | {
        a + b for a, b in base.spec["model"]["merges"]
    }
    wanted = size - len(control)
    learner = MergeLearner(
        training.table,
        {piece: index for piece, index in base.mergeable_pieces.items() if len(piece) == 1 or piece in made},
        training.words,
        training.factors,
        protected_ratio=protected_ratio,
        size=wanted,
        minimum_frequency=minimum_frequency,
        maximum_length=MAXIMUM_PIECE_LENGTH * _UTF8_LENGTH,
        budgets=[*budget, None],
        admits=_admission(base, protected_scripts),
    )
    with progress.task("learning new tokens", total=wanted) as advance:
        learned = prune(learner.learn(_readable(advance)), minimum_frequency)
    learned, tokenizer = _assemble(ground, control, learned)
    excess = tokenizer.size % pad_to if pad_to else 0
    if excess and excess <= len(learned):  # the last pieces are part of no other
        learned, tokenizer = _assemble(ground, control, learned[:-excess])
    if len(learned) < wanted and not any(number is not None for number in budget):
        shortage = f"the text supports {len(learned)} new tokens with frequency {minimum_frequency}, not {wanted}"
        if strict:
            raise SeallmError(f"{shortage}; give more text, a smaller size or a lower minimum frequency")
        progress.say(shortage)
    return Extension(
        tokenizer=tokenizer,
        base_size=base.size,
        base_digest=base.digest,
        new_pieces=(*control, *(piece.text for piece in learned)),
        source_ids=[
            *(base.encode_fragment(token) for token in control),
            *(base.encode_piece(piece.text) for piece in learned),
        ],
        frequencies=(*(0 for _ in control), *(piece.frequency for piece in learned)),
        languages=(*("" for _ in control), *(training.languages[piece.language] for piece in learned)),
    )


def _remembered(texts: Iterable[str], sample: list[str]) -> Iterator[str]:
    """The texts, the first of which are put into `sample` on the way."""
    for text in texts:
        if len(sample) < _SAMPLE:
            sample.append(text)
        yield text


def _admission(base: ByteLevelTokenizer, protected_scripts: Iterable[str]) -> Callable[[str], bool]:
    """Which pieces may be made: up to 16 characters, the last of them perhaps not whole; none that the base has.

    That a piece may end within a character but not begin within one costs next to nothing against no rule at all.
    Whole characters only would cost Lao (Qwen) and Khmer (tekken) 18 % more tokens: the base's own pieces cut there.
    """
    guard = script_guard(protected_scripts)
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


def _readable(advance: Callable[..., None]) -> Callable[..., None]:
    return lambda n=1, note="": advance(n, note=from_alphabet(note).decode("utf-8", "replace").strip())


def _assemble(
    ground: ByteLevelTokenizer, control: Sequence[str], learned: Sequence[LearnedPiece]
) -> tuple[list[LearnedPiece], ByteLevelTokenizer]:
    """The tokenizer with control tokens and pieces behind its own; pieces that its merges do not reach are left out."""
    pieces = list(learned)
    while True:
        spec = _extended_spec(ground, control, [piece.text for piece in pieces])
        merging = backend(spec | {"model": spec["model"] | {"ignore_merges": False}}).model
        reached = [
            piece
            for index, piece in enumerate(pieces, start=ground.size + len(control))
            if [token.id for token in merging.tokenize(piece.text)] == [index]
        ]
        if len(reached) == len(pieces):
            break
        pieces = reached
    config = ground.config | ({"pad_token": PAD} if PAD in control else {})
    template = ground.chat_template if ground.has_own_template else None
    return pieces, ByteLevelTokenizer(spec, config, chat_template=template, notes=ground.notes)


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
