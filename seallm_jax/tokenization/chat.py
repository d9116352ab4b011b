"""The chat tokens and the default chat template (ChatML)."""

from __future__ import annotations

CHAT_START = "<|im_start|>"
CHAT_END = "<|im_end|>"
PAD = "<pad>"
# Reserved from the start by `learn_tokenizer`; appended by `extend_tokenizer` when the base has not got them.
CHAT_TOKENS = (CHAT_START, CHAT_END, PAD)


def chat_template(end_of_turn: str) -> str:
    """Jinja source of the template: one BOS, then `<|im_start|>{role}\\n{content}{end_of_turn}\\n` for each message.

    The template writes the BOS itself, as Llama 3's and Mistral's do, so rendered text is encoded without adding one.
    The rendering of the first n messages is a prefix of the rendering of more.

    Args:
      end_of_turn: text of the token that ends a turn: `<|im_end|>`, or the end-of-sequence token of a base tokenizer
        that has no chat tokens (there `<|im_start|>` is ordinary text, as in SeaLLM-7B-v2).
    """
    return (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{{ '" + CHAT_START + "' + message['role'] + '\\n' + message['content'] + '" + end_of_turn + "' + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + CHAT_START + "assistant\\n' }}{% endif %}"
    )
