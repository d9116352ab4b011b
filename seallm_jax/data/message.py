"""A turn of a conversation, and a conversation."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
      role: system, user, assistant or tool.
      content: the text.
    """

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns, of which the assistant's are learned.

    Attributes:
      messages: the turns, in order; the last is the assistant's.
      language: language code, empty where the record has none.
      position: where it was read, as `file.jsonl:12`.
    """

    messages: tuple[Message, ...]
    language: str
    position: str

    @property
    def text(self) -> str:
        """All contents, for language identification."""
        return "\n".join(message.content for message in self.messages)


@dataclasses.dataclass(frozen=True)
class Preference:
    """A prompt with a chosen and a rejected reply.

    Attributes:
      prompt: the turns before the reply.
      chosen, rejected: the replies.
      language: language code, empty where the record has none.
      position: where it was read.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    language: str
    position: str

    @property
    def text(self) -> str:
        """Prompt and chosen reply, for language identification."""
        return "\n".join(message.content for message in (*self.prompt, self.chosen))
