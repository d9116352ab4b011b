"""Tokens that no text encodes to."""

from __future__ import annotations

from seallm_jax.tokenization.tokenizer import Tokenizer


def unreachable_tokens(tokenizer: Tokenizer, *, first: int = 0) -> list[int]:
    """Ids from `first` on that no text encodes to, though they stand for text.

    Control tokens are not text, and the single bytes are there for characters without a piece; neither are counted.
    Merges inside a token do not depend on what stands around it, so a token is out of reach exactly when its own text
    becomes other tokens. A byte-level token that holds part of a character has no text of its own and is taken for
    reachable.
    """
    exempt = {*tokenizer.special_tokens.values(), *(index for index in tokenizer.byte_ids.tolist())}
    found = []
    for index in range(first, tokenizer.size):
        if index in exempt:
            continue
        try:
            text = tokenizer.piece_bytes(index).decode()
        except UnicodeDecodeError:
            continue
        if tokenizer.encode_fragment(text) != [index]:
            found.append(index)
    return found
