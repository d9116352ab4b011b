"""Rendering and ids against transformers; the mask against `{% generation %}` where a template has it."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.chat import ChatRenderer
from seallm_jax.data.message import Message
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer

LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GENERATION = """{{ bos_token }}{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}{% generation %}{{ message.content }}{{ '<|im_end|>' }}{% endgeneration %}
        {{- '\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
THINKING = (  # like Qwen3: what was thought is left out once another turn follows
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": None,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "generation": GENERATION,
    "plain": PLAIN,
}

DIALOGUE = (
    Message("user", "Apa kabar? เป็นอย่างไร"),
    Message("assistant", "Baik-baik saja.\n\n សួស្តី 🙂"),
    Message("user", "Terima kasih\u200b!"),
    Message("assistant", "Sama-sama."),
)


@pytest.fixture(scope="module")
def transformers_tokenizer(tokenizer_directory):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(tokenizer_directory)


def with_template(tokenizer, template):
    return tokenizer if template is None else SentencePieceTokenizer(tokenizer.model, chat_template=template)


def as_dicts(messages):
    return [{"role": message.role, "content": message.content} for message in messages]


def learned_text(tokenizer, chat):
    """The learned runs of a conversation as text."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chat.learned, [0]])))
    return [tokenizer.decode(chat.ids[a:b], special=True) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("turns", [2, 4])
def test_text_and_ids_are_those_of_transformers(tokenizer, transformers_tokenizer, name, turns):
    own = with_template(tokenizer, TEMPLATES[name])
    renderer = ChatRenderer(own)
    messages = DIALOGUE[:turns]
    options = {"chat_template": own.chat_template}
    for prompt in (False, True):
        expected = transformers_tokenizer.apply_chat_template(
            as_dicts(messages), tokenize=False, add_generation_prompt=prompt, **options
        )
        assert renderer.render(messages, generation_prompt=prompt) == expected
    expected = transformers_tokenizer.apply_chat_template(as_dicts(messages), return_dict=True, **options)["input_ids"]
    chat = renderer.encode(messages)
    assert chat.ids.tolist() == expected
    assert (chat.ids == own.bos_id).sum() == (turns // 2 if name == "llama2" else 0 if name == "plain" else 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", ["Baik-baik saja.\n\n សួស្តី 🙂<|im_end|>", "Sama-sama.<|im_end|>"]),
        ("llama2", [" Baik-baik saja.\n\n សួស្តី 🙂 </s>", " Sama-sama. </s>"]),
        ("mistral", ["Baik-baik saja.\n\n សួស្តី 🙂</s>", "Sama-sama.</s>"]),
        ("generation", ["Baik-baik saja.\n\n សួស្តី 🙂<|im_end|>", "Sama-sama.<|im_end|>"]),
        # no end token: the white space is learned in its place; a token that begins before the words is learned, too
        ("plain", [" Baik-baik saja.\n\n សួស្តី 🙂\n\n", " Sama-sama.\n\n"]),
    ],
)
def test_the_words_of_the_assistant_and_the_end_of_its_turn_are_learned(tokenizer, name, expected):
    own = with_template(tokenizer, TEMPLATES[name])
    renderer = ChatRenderer(own)
    assert learned_text(own, renderer.encode(DIALOGUE)) == expected
    assert learned_text(own, renderer.encode(DIALOGUE, last_only=True)) == expected[1:]


def test_the_mask_is_that_of_generation_marks(tokenizer, transformers_tokenizer):
    own = with_template(tokenizer, GENERATION)
    expected = transformers_tokenizer.apply_chat_template(
        as_dicts(DIALOGUE), chat_template=GENERATION, return_dict=True, return_assistant_tokens_mask=True
    )
    chat = ChatRenderer(own).encode(DIALOGUE)
    assert chat.ids.tolist() == expected["input_ids"]
    assert chat.learned.astype(int).tolist() == expected["assistant_masks"]


contents = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), min_size=1, max_size=30)


@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_give_the_ids_and_mask_of_transformers(tokenizer, transformers_tokenizer, exchanges):
    messages = [m for question, answer in exchanges for m in (Message("user", question), Message("assistant", answer))]
    own = with_template(tokenizer, GENERATION)
    expected = transformers_tokenizer.apply_chat_template(
        as_dicts(messages), chat_template=GENERATION, return_dict=True, return_assistant_tokens_mask=True
    )
    chat = ChatRenderer(own).encode(messages)
    assert chat.ids.tolist() == expected["input_ids"]
    assert chat.learned.astype(int).tolist() == expected["assistant_masks"]


def test_training_text_is_inference_text_and_a_reply(tokenizer):
    """What the model sees before its reply in training is the very prompt that generation renders."""
    renderer = ChatRenderer(tokenizer)
    prompt = tokenizer.encode(renderer.render(DIALOGUE[:3], generation_prompt=True), special=True)
    chat = renderer.encode(DIALOGUE, last_only=True)
    assert chat.ids[: np.flatnonzero(chat.learned)[0]].tolist() == prompt


def test_a_tokenizer_with_a_dummy_prefix_gives_the_same_mask(tokenizer):
    proto = tokenizer.copy_proto()
    proto.normalizer_spec.add_dummy_prefix = True
    prefixed = SentencePieceTokenizer(proto.SerializeToString(), chat_template=PLAIN)
    assert prefixed.adds_prefix
    chat = ChatRenderer(prefixed).encode(DIALOGUE[:2])
    start = np.flatnonzero(chat.learned)[0]
    assert (
        prefixed.decode(chat.ids[:start]).endswith("assistant: ") or prefixed.piece(int(chat.ids[start]))[0] == "\u2581"
    )
    assert prefixed.decode(chat.ids[start:]).strip() == DIALOGUE[1].content


def test_a_byte_level_tokenizer_without_bos(byte_level, tmp_path):
    """Qwen's kind: no BOS in the rendering, the end of a turn learned, pieces that cut through characters."""
    transformers = pytest.importorskip("transformers")
    byte_level.save(tmp_path)
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    renderer = ChatRenderer(byte_level)
    chat = renderer.encode(DIALOGUE)
    assert renderer.render(DIALOGUE) == fast.apply_chat_template(as_dicts(DIALOGUE), tokenize=False)
    assert chat.ids.tolist() == fast.apply_chat_template(as_dicts(DIALOGUE), return_dict=True)["input_ids"]
    assert byte_level.piece(int(chat.ids[0])) == "<|im_start|>"
    assert learned_text(byte_level, chat) == ["Baik-baik saja.\n\n សួស្តី 🙂<|im_end|>", "Sama-sama.<|im_end|>"]


def test_a_template_that_is_not_prefix_stable_is_refused_by_name(tokenizer):
    thinking = [Message("user", "a"), Message("assistant", "<think>x</think>b"), *DIALOGUE[2:]]
    with pytest.raises(SeallmError, match="file.jsonl:3: the chat template renders turn 2 otherwise"):
        ChatRenderer(with_template(tokenizer, THINKING)).encode(thinking, position="file.jsonl:3")


def test_what_a_template_raises_names_the_conversation(tokenizer):
    with pytest.raises(SeallmError, match="f:1: the chat template refuses it: Conversation roles must alternate"):
        ChatRenderer(with_template(tokenizer, MISTRAL)).encode(DIALOGUE[1:], position="f:1")
    with pytest.raises(SeallmError, match="not valid Jinja"):
        ChatRenderer(with_template(tokenizer, "{% for %}"))


def test_templates_run_in_a_sandbox(tokenizer):
    attack = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SeallmError, match="the chat template refuses it"):
        ChatRenderer(with_template(tokenizer, attack)).encode(DIALOGUE)
