"""Preference pairs: the two segments they take in a packed row, and which are kept for evaluation."""

from __future__ import annotations

import hashlib

from seallm_jax.data.chat import ChatRenderer, EncodedChat
from seallm_jax.data.message import Preference


def encode_preference(renderer: ChatRenderer, pair: Preference) -> tuple[EncodedChat, EncodedChat]:
    """The prompt with the chosen reply and the prompt with the rejected one; only the replies are learned.

    Raises:
      SeallmError: the chat template refuses the pair, naming it.
    """
    chosen, rejected = (
        renderer.encode((*pair.prompt, reply), last_only=True, position=pair.position)
        for reply in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def is_heldout(pair: Preference, share: float, seed: int) -> bool:
    """Whether a pair is kept for evaluation, by a hash of seed and prompt: pairs with the same prompt stay together."""
    prompt = "\0".join(f"{message.role}\0{message.content}" for message in pair.prompt)
    digest = hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "little") < share * 2**64
