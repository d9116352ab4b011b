"""Special text, batches and errors of SentencePiece tokenizers."""

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.tokenization.conftest import AWKWARD


def test_the_space_sign_is_told_apart_from_a_space(any_tokenizer):
    assert any_tokenizer.encode("a\u2581b") != any_tokenizer.encode("a b")
    assert [any_tokenizer.piece(index) for index in any_tokenizer.encode("a\u2581b")][-4:-1] == [
        "<0xE2>",
        "<0x96>",
        "<0x81>",
    ]


def test_a_lone_surrogate_is_refused(any_tokenizer):
    with pytest.raises(SeallmError, match=r"lone surrogate U\+D800 at character 1"):
        any_tokenizer.encode("a\ud800")
    with pytest.raises(SeallmError, match="text 1 has the lone surrogate"):
        any_tokenizer.encode_batch(["fine", "\udfff"])


def test_typed_control_text_is_text_unless_asked(base):
    text = "<|im_start|>user\nhi<|im_end|>"
    start, end = base.id_of("<|im_start|>"), base.id_of("<|im_end|>")
    assert start not in base.encode(text)
    read = base.encode(text, special=True)
    assert read[0] == start and read[-1] == end
    assert read[1:-1] == base.encode_fragment("user\nhi")
    assert base.decode(read) == "user\nhi"
    assert base.decode(read, special=True) == text


def test_control_tokens_keep_spaces_around_them(extension, prefixed_extension):
    for tokenizer in (extension.tokenizer, prefixed_extension.tokenizer):
        text = "<|im_start|> a <|im_end|>  b"
        assert tokenizer.decode(tokenizer.encode(text, special=True), special=True) == text


def test_bos_and_eos_are_added_only_when_asked_and_never_twice(any_tokenizer):
    plain = any_tokenizer.encode("hello")
    assert any_tokenizer.bos_id not in plain and any_tokenizer.eos_id not in plain
    assert any_tokenizer.encode("hello", bos=True, eos=True) == [any_tokenizer.bos_id, *plain, any_tokenizer.eos_id]
    once = any_tokenizer.encode("<s>hello", bos=True, special=True)
    assert once.count(any_tokenizer.bos_id) == 1


def test_batches_equal_single_texts_for_any_number_of_threads(any_tokenizer, sample_texts):
    texts = [*AWKWARD, *(document for documents in sample_texts.values() for document in documents[:3])]
    expected = [any_tokenizer.encode(text) for text in texts]
    for threads in (1, 2, 0):
        encoded = any_tokenizer.encode_batch(texts, threads=threads)
        assert all(isinstance(ids, np.ndarray) and ids.dtype == np.int32 for ids in encoded)
        assert [ids.tolist() for ids in encoded] == expected
    assert any_tokenizer.encode_batch([]) == []


def test_ids_outside_the_vocabulary_are_an_error(base):
    for index in (-1, base.size):
        with pytest.raises(SeallmError, match="outside the vocabulary of 1024"):
            base.decode([index])


def test_decode_takes_arrays_and_partial_bytes(base):
    assert base.decode(np.asarray(base.encode("กข"), np.int32)) == "กข"
    assert base.decode(base.encode("ก")[:-1]).strip("\ufffd") == ""


def test_special_ids(base, prefixed_base, extension):
    assert [base.piece(index) for index in range(6)] == ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    assert (base.unk_id, base.bos_id, base.eos_id, base.pad_id) == (0, 1, 2, 3)
    assert base.stop_ids == (2, 5)
    assert prefixed_base.stop_ids == (2,)
    assert prefixed_base.pad_id == prefixed_base.unk_id
    assert extension.tokenizer.stop_ids == base.stop_ids
    assert base.template_variables["bos_token"] == "<s>"


def test_saving_and_loading_gives_the_same_tokenizer(any_tokenizer, tmp_path):
    any_tokenizer.save(tmp_path / "new" / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "new" / "tokenizer")
    assert loaded.digest == any_tokenizer.digest
    assert loaded.model == any_tokenizer.model
    assert loaded.chat_template == any_tokenizer.chat_template
    assert loaded.stop_ids == any_tokenizer.stop_ids
    assert loaded.special_tokens == any_tokenizer.special_tokens
    assert Tokenizer.load(tmp_path / "new" / "tokenizer" / "tokenizer.model").digest == any_tokenizer.digest


def test_saving_beside_other_files_leaves_them_alone(base, extension, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    base.save(tmp_path)
    extension.tokenizer.save(tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"
    assert Tokenizer.load(tmp_path).digest == extension.tokenizer.digest
    assert not list(tmp_path.glob(".*"))


def test_saving_twice_writes_the_same_bytes(base, tmp_path):
    base.save(tmp_path / "a")
    base.save(tmp_path / "b")
    base.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_settings_that_are_not_in_the_model_are_handed_through(base, tmp_path):
    own = SentencePieceTokenizer(
        base.model, chat_template="{{ messages }}", eos_token="<|im_end|>", model_max_length=2048
    )
    own.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.chat_template == "{{ messages }}" and loaded.has_own_template
    assert loaded.piece(loaded.eos_id) == "<|im_end|>"
    assert loaded.model_max_length == 2048
    assert loaded.stop_ids == base.stop_ids


def test_mistral_survives_awkward_text(mistral):
    assert mistral.adds_prefix and mistral.size == 32000
    for text in AWKWARD:
        assert mistral.decode(mistral.encode(text)) == text
    # the ids of Mistral's own documentation
    assert mistral.encode("Hello", bos=True) == [1, 22557]
