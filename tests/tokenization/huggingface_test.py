"""`AutoTokenizer` gives the same ids from the saved directory."""

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.tokenization.conftest import AWKWARD, texts_with_edges

transformers = pytest.importorskip("transformers")

MESSAGES = [
    {"role": "system", "content": "Jawab singkat."},
    {"role": "user", "content": " leading space\nແລະ <b> "},
    {"role": "assistant", "content": "ครับ"},
]


@pytest.fixture(scope="session")
def pair(any_tokenizer, tmp_path_factory):
    """(ours, Hugging Face's)"""
    directory = tmp_path_factory.mktemp("tokenizer") / "saved"
    any_tokenizer.save(directory)
    return any_tokenizer, transformers.AutoTokenizer.from_pretrained(directory)


def ids_of(fast, text):
    return fast(text, add_special_tokens=False)["input_ids"]


def without_control_text(tokenizer, text):
    return "\u2581" not in text and not any(token in text for token in tokenizer.special_tokens)


def test_it_is_fast_and_knows_the_special_tokens(pair):
    ours, fast = pair
    assert fast.is_fast
    assert len(fast) == fast.vocab_size == ours.size
    assert (fast.bos_token_id, fast.eos_token_id, fast.unk_token_id) == (ours.bos_id, ours.eos_id, ours.unk_id)
    assert fast.pad_token_id == ours.pad_id
    assert set(fast.all_special_tokens) == set(ours.special_tokens)
    assert [fast.convert_ids_to_tokens(index) for index in range(ours.size)] == [
        ours.piece(index) for index in range(ours.size)
    ]


def test_identical_ids_on_the_sample(pair, sample_texts):
    ours, fast = pair
    documents = [text for texts in sample_texts.values() for text in texts]
    lines = [line for text in documents for line in text.split("\n")]
    texts = documents + lines + [" " + line for line in lines[::3]] + [line + "  \n" for line in lines[::5]]
    encoded = ours.encode_batch(texts)
    assert [ids.tolist() for ids in encoded] == ids_of(fast, texts)
    assert all(fast.decode(ids, skip_special_tokens=True) == text for ids, text in zip(encoded, texts, strict=True))


def test_identical_ids_on_awkward_text(pair):
    ours, fast = pair
    for text in AWKWARD:
        if without_control_text(ours, text):
            assert ids_of(fast, text) == ours.encode(text), repr(text)


@hypothesis.settings(
    deadline=None, max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(text=texts_with_edges)
def test_identical_ids_on_any_text(pair, text):
    ours, fast = pair
    hypothesis.assume(without_control_text(ours, text))
    ids = ours.encode(text)
    assert ids_of(fast, text) == ids
    assert fast.decode(ids) == text


@hypothesis.settings(
    deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(parts=st.lists(st.sampled_from(["<|im_start|>", "<|im_end|>", "<s>", " a", "b ", "\n", "ก", " "])))
def test_identical_ids_with_control_text_read_as_control_tokens(pair, parts):
    ours, fast = pair
    text = "".join(parts)
    assert ids_of(fast, text) == ours.encode(text, special=True)


def test_the_known_difference(pair):
    """U+2581: here its own bytes, in AutoTokenizer a space. Both decode our ids."""
    ours, fast = pair
    assert ids_of(fast, "a\u2581b") == ours.encode("a b") != ours.encode("a\u2581b")
    assert fast.decode(ours.encode("a\u2581b")) == "a\u2581b"


def test_bos_as_users_know_it_from_llama(pair):
    ours, fast = pair
    assert fast("hello")["input_ids"] == ours.encode("hello", bos=True)
    assert sorted(fast("hello")) == ["attention_mask", "input_ids"]


@pytest.mark.parametrize("generation", [False, True])
def test_the_chat_template_has_one_bos(pair, generation):
    ours, fast = pair
    text = fast.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=generation)
    ids = fast.apply_chat_template(MESSAGES, tokenize=True, add_generation_prompt=generation, return_dict=False)
    assert ids == ours.encode(text, special=True) == ours.encode(text, special=True, bos=True)
    assert ids[0] == ours.bos_id and ids.count(ours.bos_id) == 1
    assert text.endswith("<|im_start|>assistant\n") == generation
    assert text.count("<|im_start|>") == len(MESSAGES) + generation
    if "<|im_end|>" in ours.special_tokens:
        assert ids.count(ours.id_of("<|im_end|>")) == len(MESSAGES)


def test_saving_again_from_hugging_face_changes_nothing(pair, tmp_path, sample_texts):
    ours, fast = pair
    fast.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [texts[0] for texts in sample_texts.values()] + ["  two spaces", "\nline"]
    assert ids_of(again, texts) == [ids.tolist() for ids in ours.encode_batch(texts)]


def test_beside_a_llama_config(pair, tmp_path):
    """In an exported model's folder AutoTokenizer first looks at config.json."""
    ours, _ = pair
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("  leading", "plain ครับ", "a\n b"):
        assert ids_of(fast, text) == ours.encode(text)


def test_the_llama_class_reads_a_learned_tokenizer_too(base, extension, tmp_path, sample_texts):
    for number, tokenizer in enumerate((base, extension.tokenizer)):
        tokenizer.save(tmp_path / str(number))
        fast = transformers.LlamaTokenizer.from_pretrained(tmp_path / str(number))
        texts = [texts[0] for texts in sample_texts.values()] + ["  two spaces", "\nline"]
        assert ids_of(fast, texts) == [ids.tolist() for ids in tokenizer.encode_batch(texts)]


def test_mistral_with_runs_of_spaces(mistral, tmp_path, sample_texts):
    mistral.save(tmp_path / "mistral")
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path / "mistral")
    texts = [text for documents in sample_texts.values() for text in documents]
    texts += [" " * count + end for count in range(40) for end in ("", "x", "\n", ". ")]
    assert ids_of(fast, texts) == [ids.tolist() for ids in mistral.encode_batch(texts)]
