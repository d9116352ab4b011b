"""Preference files to pairs of scored replies."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.chat import ChatRenderer, EncodedChat
from seallm_jax.data.formats import MalformedRecordError, to_preference
from seallm_jax.data.message import Preference
from seallm_jax.data.preferences import encode_preference
from seallm_jax.data.records import read_records
from seallm_jax.evaluation.rows import ScoredText


@dataclasses.dataclass(frozen=True)
class PreferencePair:
    """Two replies to one prompt, as token ids of the rendered conversations.

    Attributes:
      language: code.
      chosen: prompt and preferred reply; scored is the reply with the token that ends it.
      rejected: prompt and the other reply.
      chosen_bytes: UTF-8 bytes of the preferred reply's text.
      rejected_bytes: UTF-8 bytes of the other reply's text.
    """

    language: str
    chosen: ScoredText
    rejected: ScoredText
    chosen_bytes: int
    rejected_bytes: int


def read_preference_pairs(
    path: pathlib.Path,
    renderer: ChatRenderer,
    *,
    languages: Collection[str] | None = None,
    identify: Callable[[str], str] | None = None,
    keep: Callable[[Preference], bool] = lambda pair: True,
) -> list[PreferencePair]:
    """Reads preference pairs in any of the formats of `seallm_jax.data.formats`.

    Records that are no pairs are left out, as are those whose language is unknown or not wanted.

    Args:
      path: file or directory.
      renderer: puts the conversations into the words and ids of a model.
      languages: codes to keep; None keeps all.
      identify: text -> language code, for records without one.
      keep: which of these pairs to take, such as those that training has left out. It may leave none.

    Raises:
      SeallmError: nothing to read, no pair in these languages, or a chat template that does not suit a pair.
    """
    pairs = []
    usable = False
    for record in read_records(path, ranking=True):
        try:
            preference = to_preference(record)
        except MalformedRecordError:
            continue
        language = preference.language or (identify(preference.text) if identify else "")
        if not language or (languages is not None and language not in languages):
            continue
        usable = True
        if not keep(preference):
            continue
        chosen, rejected = (_scored_text(chat, preference.position) for chat in encode_preference(renderer, preference))
        sizes = [len(reply.content.encode("utf-8")) for reply in (preference.chosen, preference.rejected)]
        pairs.append(PreferencePair(language, chosen, rejected, *sizes))
    if not usable:
        raise SeallmError(f"{path} holds no preference pairs in a language that is evaluated")
    return pairs


def _scored_text(chat: EncodedChat, position: str) -> ScoredText:
    """What is behind the learned tokens, such as white space after the end token, is cut off."""
    learned = np.flatnonzero(chat.learned)
    if not learned.size or learned[0] == 0:
        raise SeallmError(f"{position}: the chat template leaves no reply behind a prompt")
    return ScoredText(chat.ids[: learned[-1] + 1], int(learned[0]))
