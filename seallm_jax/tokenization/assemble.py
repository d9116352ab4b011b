"""From a list of new pieces to the extended tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol, TypeVar

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.chat import CHAT_TOKENS, PAD
from seallm_jax.tokenization.model_file import CONTROL, NORMAL, USER_DEFINED, append_pieces
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer


class _HasText(Protocol):
    @property
    def text(self) -> str: ...


Piece = TypeVar("Piece", bound=_HasText)
Kind = TypeVar("Kind", bound=Tokenizer)


def missing_chat_tokens(base: Tokenizer, size: int) -> tuple[str, ...]:
    """The chat tokens that the base lacks. Raises SeallmError when `size` new tokens do not hold them."""
    wanted = (token for token in CHAT_TOKENS if token != PAD or not base.has_pad)
    control = tuple(token for token in wanted if base.id_of(token) is None)
    if size < len(control):
        raise SeallmError(f"vocabulary size {size} has no room for the chat tokens {', '.join(control)}")
    return control


def assemble(learned: Sequence[Piece], extended: Callable[[Sequence[str]], Kind]) -> tuple[list[Piece], Kind]:
    """The pieces that come out of their own text, and the tokenizer with them; `extended` makes it, pieces last."""
    pieces = list(learned)
    while True:
        tokenizer = extended([piece.text for piece in pieces])
        reached = [
            piece
            for index, piece in enumerate(pieces, start=tokenizer.size - len(pieces))
            if tokenizer.encode_piece(piece.text) == [index]
        ]
        if len(reached) == len(pieces):
            return pieces, tokenizer
        pieces = reached


def append_merges(
    base: SentencePieceTokenizer, control: Sequence[str], pieces: Sequence[str]
) -> SentencePieceTokenizer:
    """The base with control tokens and pieces after its own, merged after all of its own merges, in this order."""
    proto = base.copy_proto()
    append_pieces(proto, pieces, control=control)
    return _like(base, proto.SerializeToString(deterministic=True))


def assemble_on_top(base: SentencePieceTokenizer, control: Sequence[str], pieces: Sequence[str]) -> Tokenizer:
    """The base with the pieces' merges before all of its own, as in Chinese-LLaMA's merge, in a strict order.

    (There all new pieces have the score 0. Pieces of one score merge from the left in SentencePiece but one after
    another in `tokenizers`, so that the two would not agree.) Ids stay, old text does not keep its ids, and pieces that
    no text reaches stay in.
    """
    proto = base.copy_proto()
    for piece in control:
        proto.pieces.add(piece=piece, score=0.0, type=CONTROL)
    highest = np.float32(max(piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)))
    for index, piece in enumerate(pieces):
        proto.pieces.add(piece=piece, score=float(highest + len(pieces) - index), type=NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return _like(base, proto.SerializeToString(deterministic=True))


def ambiguous(text: str, pieces: Container[str]) -> bool:
    """Whether a repetition such as aaa can be made of two pieces in several ways; libraries may differ then."""
    period = next(cut for cut in range(1, len(text) + 1) if text[cut:] == text[: len(text) - cut])
    if 2 * period >= len(text):
        return False
    return sum(text[:cut] in pieces and text[cut:] in pieces for cut in range(1, len(text))) > 1


def round_to_multiple(base_size: int, size: int, multiple: int) -> int:
    """`size` new tokens, raised so that the whole vocabulary is a multiple; 0 for none."""
    if multiple < 0:
        raise SeallmError(f"pad_to {multiple} must not be negative")
    return size + (-(base_size + size) % multiple if multiple and size else 0)


def _like(base: SentencePieceTokenizer, model: bytes) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(
        model,
        chat_template=base.chat_template if base.has_own_template else None,
        eos_token=base.piece(base.eos_id),
        model_max_length=base.model_max_length,
    )
