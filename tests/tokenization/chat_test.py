"""The default chat template, rendered by Jinja itself."""

import jinja2.sandbox
import pytest

from seallm_jax.tokenization.chat import chat_template

MESSAGES = [{"role": "user", "content": "a\n{{ b }}"}, {"role": "assistant", "content": " c "}]


def render(template, messages, **variables):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, bos_token="<s>", **variables)


def test_rendering():
    template = chat_template("<|im_end|>")
    expected = "<s><|im_start|>user\na\n{{ b }}<|im_end|>\n<|im_start|>assistant\n c <|im_end|>\n"
    assert render(template, MESSAGES) == expected
    assert render(template, MESSAGES[:1], add_generation_prompt=True) == (
        "<s><|im_start|>user\na\n{{ b }}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_messages_are_a_prefix(count):
    template = chat_template("</s>")
    assert render(template, MESSAGES).startswith(render(template, MESSAGES[:count]))
