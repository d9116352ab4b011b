"""Conversations to token ids and the mask of what is learned, by the tokenizer's own chat template."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.message import Message
from seallm_jax.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class EncodedChat:
    """Token ids of a rendered conversation.

    Attributes:
      ids: int32 [n], the ids that `apply_chat_template` of transformers gives.
      learned: bool [n], True for the ids of the assistant's words and of the token that ends its turn.
    """

    ids: np.ndarray
    learned: np.ndarray


class ChatRenderer:
    """Renders and encodes conversations as `transformers` does, and finds what is learned.

    The learned text of a turn is what the rendering gains when the turn is added: rendering of the turns before it with
    the generation prompt, then rendering up to it. No `{% generation %}` marks are needed. White space behind the end
    token is not learned; where the template has no end token, whatever follows the words is learned in its place.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Raises SeallmError for a template that is not valid Jinja."""
        self._tokenizer = tokenizer
        self._variables = tokenizer.template_variables
        try:
            self._template = _environment().from_string(tokenizer.chat_template)
        except jinja2.TemplateSyntaxError as error:
            raise SeallmError(f"the tokenizer's chat template is not valid Jinja: {error}") from error
        self._lengths = tokenizer.byte_lengths

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False, position: str = "") -> str:
        """Text of a conversation. Raises SeallmError, naming `position`, when the template refuses it."""
        try:
            return self._template.render(
                messages=[{"role": message.role, "content": message.content} for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._variables,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise SeallmError(f"{position or 'conversation'}: the chat template refuses it: {error}") from error

    def encode(self, messages: Sequence[Message], *, last_only: bool = False, position: str = "") -> EncodedChat:
        """Ids and mask of a conversation.

        Args:
          messages: the turns.
          last_only: learn the last turn only, not what the assistant said before.
          position: names the conversation in errors.

        Raises:
          SeallmError: the template refuses the conversation, or renders earlier turns otherwise when more follow.
        """
        text = self.render(messages, position=position)
        ids = np.array(self._tokenizer.encode(text, special=True), np.int32)
        ends = self._byte_ends(ids, len(text.encode()), position)
        learned = np.zeros(len(ids), bool)
        for number, message in enumerate(messages):
            if message.role != "assistant" or (last_only and number < len(messages) - 1):
                continue
            start, stop = self._span(text, messages, number, position)
            first = np.searchsorted(ends, len(text[:start].encode()), side="right")
            last = np.searchsorted(ends, len(text[:stop].encode()), side="right")
            learned[first:last] = True
        return EncodedChat(ids, learned)

    def _span(self, text: str, messages: Sequence[Message], number: int, position: str) -> tuple[int, int]:
        """Characters of the rendered text that turn `number` adds and that are learned."""
        before = self.render(messages[:number], generation_prompt=True, position=position)
        after = self.render(messages[: number + 1], position=position)
        if not text.startswith(after) or not after.startswith(before):
            raise SeallmError(
                f"{position or 'conversation'}: the chat template renders turn {number + 1} otherwise when other turns "
                "follow, so what is learned cannot be told; use a template whose renderings are prefixes of one another"
            )
        added = after[len(before) :]
        kept = added.rstrip()
        words = messages[number].content.rstrip()
        if words and kept.endswith(words):  # no end token: what is left to learn the end from is the white space
            return len(before), len(after)
        return len(before), len(before) + len(kept)

    def _byte_ends(self, ids: np.ndarray, size: int, position: str) -> np.ndarray:
        """int64, the byte of the text at which each token ends."""
        ends = np.cumsum(self._lengths[ids], dtype=np.int64)
        prefix = int(ends[-1]) - size if len(ends) else 0
        if prefix not in (0, 1):
            raise SeallmError(f"{position or 'conversation'}: the tokenizer does not keep the text it encodes")
        return ends - prefix  # a tokenizer with a dummy prefix puts one space before the text


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """The environment in which transformers renders chat templates."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`, which marks what the assistant says, renders its contents."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
