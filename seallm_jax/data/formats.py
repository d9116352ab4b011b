"""Instruction records in their many formats to conversations; preference records to prompt, chosen and rejected.

Formats: `messages`; ShareGPT `conversations`; Alpaca `instruction`, `input`, `output`, `history`, `system`; `prompt`
with `completion`; and for preferences `prompt`, `chosen`, `rejected` in each of these. LLaMA-Factory's `columns` and
`tags` rename the fields (its data/README.md); TRL's dataset types are a subset.
"""

from __future__ import annotations

from typing import Any

from seallm_jax.data.message import Conversation, Message, Preference
from seallm_jax.data.records import Record

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
ROLE_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "assistant",
    "system_tag": "system",
}
LANGUAGE_KEYS = ("lang", "language")


class MalformedRecordError(Exception):
    """A record that has no known format; the message says why, in a few words."""


def to_conversation(record: Record) -> Conversation:
    """The conversation in a record; turns after the assistant's last one are left out.

    Raises:
      MalformedRecordError: unreadable, of unknown format, or without a reply.
    """
    value = _renamed(record)
    turns = _turns(value, record.layout)
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.content.strip()), default=-1)
    if last < 0:
        raise MalformedRecordError("no reply")
    return Conversation(tuple(turns[: last + 1]), _language(value), record.position)


def to_preference(record: Record) -> Preference:
    """The pair in a record. Where there is no prompt, it is the turns that both replies begin with.

    Raises:
      MalformedRecordError: unreadable, of unknown format, without a prompt, or with two equal replies.
    """
    value = _renamed(record)
    if value.get("chosen") is None or value.get("rejected") is None:
        raise MalformedRecordError("no chosen or no rejected reply")
    chosen, rejected = (_as_turns(value[key], "assistant", record.layout) for key in ("chosen", "rejected"))
    prompt = _prompt(value, record.layout)
    while len(chosen) > 1 and len(rejected) > 1 and chosen[0] == rejected[0]:
        shared, chosen, rejected = chosen[0], chosen[1:], rejected[1:]
        if not value.get("prompt"):
            prompt.append(shared)
    if len(chosen) != 1 or len(rejected) != 1 or {chosen[0].role, rejected[0].role} != {"assistant"}:
        raise MalformedRecordError("replies of more than one turn")
    if not any(turn.role == "user" for turn in prompt):
        raise MalformedRecordError("no prompt")
    if not chosen[0].content.strip() or not rejected[0].content.strip():
        raise MalformedRecordError("empty reply")
    if chosen[0] == rejected[0]:
        raise MalformedRecordError("equal replies")
    return Preference(tuple(prompt), chosen[0], rejected[0], _language(value), record.position)


def _renamed(record: Record) -> dict[str, Any]:
    """The fields of a record under their standard names."""
    if record.value is None:
        raise MalformedRecordError("unreadable")
    value = record.value
    columns = record.layout.get("columns")
    if not columns:
        return value
    sharegpt = record.layout.get("formatting", "alpaca") != "alpaca"
    standard = {"messages": "conversations", "system": "system", "chosen": "chosen", "rejected": "rejected"}
    if not sharegpt:
        standard |= {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
    renamed = {standard[key]: value.get(column) for key, column in columns.items() if key in standard}
    return renamed | {key: value[key] for key in LANGUAGE_KEYS if key in value}


def _turns(value: dict[str, Any], layout: dict[str, Any]) -> list[Message]:
    """All turns of an instruction record."""
    for key in ("messages", "conversations", "conversation"):
        if value.get(key):
            return _with_system(value, _as_turns(value[key], "user", layout))
    completion = next((value[key] for key in ("completion", "response") if value.get(key) is not None), None)
    if value.get("prompt") is not None and completion is not None:
        return _prompt(value, layout) + _as_turns(completion, "assistant", layout)
    if value.get("instruction") is not None or value.get("input") is not None:
        if value.get("output") is None:
            raise MalformedRecordError("no reply")
        return [*_prompt(value, layout), Message("assistant", _text(value["output"]))]
    raise MalformedRecordError("unknown format")


def _prompt(value: dict[str, Any], layout: dict[str, Any]) -> list[Message]:
    """The turns before the reply: `prompt`, Alpaca fields or a conversation; none when there are none."""
    for key in ("prompt", "messages", "conversations"):
        if value.get(key):
            return _with_system(value, _as_turns(value[key], "user", layout))
    if value.get("instruction") is None and value.get("input") is None:
        return []
    turns = []
    for exchange in value.get("history") or []:
        if not isinstance(exchange, (list, tuple)) or len(exchange) != 2:
            raise MalformedRecordError("history is not made of pairs")
        turns += [Message("user", _text(exchange[0])), Message("assistant", _text(exchange[1]))]
    parts = [_text(value[key]) for key in ("instruction", "input") if value.get(key)]
    return _with_system(value, [*turns, Message("user", "\n".join(parts))])


def _with_system(value: dict[str, Any], turns: list[Message]) -> list[Message]:
    system = value.get("system")
    return [Message("system", _text(system)), *turns] if system else turns


def _as_turns(value: Any, role: str, layout: dict[str, Any]) -> list[Message]:
    """Text as one turn of `role`; a turn, or a list of turns, as they are."""
    if isinstance(value, str):
        return [Message(role, value)]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, dict) for turn in value):
        raise MalformedRecordError("turns are not objects")
    tags = layout.get("tags") or {}
    roles = ROLES | {tags[tag]: name for tag, name in ROLE_TAGS.items() if tag in tags}
    turns = []
    for turn in value:
        name = next((turn[key] for key in (tags.get("role_tag"), "role", "from") if key and turn.get(key)), None)
        text = next(
            (turn[key] for key in (tags.get("content_tag"), "content", "value") if key and turn.get(key) is not None),
            None,
        )
        if name not in roles:
            raise MalformedRecordError("unknown role")
        turns.append(Message(roles[name], _text(text)))
    return turns


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(str(part.get("text", "")) for part in value)
    raise MalformedRecordError("content is not text")


def _language(value: dict[str, Any]) -> str:
    return next((str(value[key]) for key in LANGUAGE_KEYS if value.get(key)), "")
