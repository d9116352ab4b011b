"""Special text, batches, ids and files of byte-level tokenizers."""

import json
import unicodedata

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import from_alphabet, to_alphabet
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.tokenization.conftest import AWKWARD


def automatic(directory, **config):
    """AutoTokenizer on a saved folder, perhaps with a model's config beside the tokenizer."""
    transformers = pytest.importorskip("transformers")
    if config:
        (directory / "config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(directory)


def test_auto_tokenizer_reads_the_base_as_we_do(byte_folder, byte_base, sample_texts):
    """The folder as it came, whose class transformers may rebuild: same ids for text in NFC, control tokens too."""
    fast = automatic(byte_folder)
    texts = [*AWKWARD, *(document for documents in sample_texts.values() for document in documents[:10])]
    for text in (unicodedata.normalize("NFC", text) for text in texts):
        assert fast(text, add_special_tokens=False)["input_ids"] == byte_base.encode(text, special=True)


def test_text_that_is_not_composed_comes_back_as_it_was(byte_base):
    assert "NFC normalizer is not applied" in byte_base.notes[0]
    assert byte_base.decode(byte_base.encode("e\u0301")) == "e\u0301"
    assert byte_base.encode("e\u0301") != byte_base.encode("\u00e9")


@pytest.mark.parametrize("name", ["byte_base", "tekken"])  # Qwen: see the extension's tests
def test_saved_folders_give_auto_tokenizer_our_ids(request, name, sample_texts, tmp_path):
    ours = request.getfixturevalue(name)
    ours.save(tmp_path)
    fast = automatic(tmp_path)
    assert len(fast) == ours.size
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    texts = [text for text in AWKWARD if "<" not in text]
    texts += [document for documents in sample_texts.values() for document in documents[:10]]
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    assert fast(texts, add_special_tokens=False)["input_ids"] == [ids.tolist() for ids in ours.encode_batch(texts)]
    with_bos = fast("hello")["input_ids"]
    assert with_bos == ours.encode("hello", bos=name == "tekken")
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    rendered = fast.apply_chat_template(messages, tokenize=False)
    expected = fast.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ours.encode(rendered, special=True) == expected
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.digest, loaded.stop_ids, loaded.chat_template) == (ours.digest, ours.stop_ids, ours.chat_template)


def test_the_base_folders_configuration_is_handed_through(byte_base, tmp_path):
    byte_base.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["errors"] == "replace" and config["model_max_length"] == 4096 == byte_base.model_max_length
    assert json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"] == {"type": "NFC"}
    for file in tmp_path.iterdir():
        before = file.read_bytes()
        Tokenizer.load(tmp_path).save(tmp_path)
        assert file.read_bytes() == before


def test_special_ids(byte_base):
    end = byte_base.id_of("<|endoftext|>")
    assert byte_base.bos_id is None and byte_base.unk_id is None
    assert byte_base.eos_id == byte_base.id_of("<|im_end|>")
    assert (byte_base.begin_id, byte_base.end_id, byte_base.pad_id) == (end, end, end)
    assert byte_base.stop_ids == (end, byte_base.eos_id)
    assert byte_base.template_variables == {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    assert byte_base.encode("a", bos=True, eos=True) == [*byte_base.encode("a"), byte_base.eos_id]


def test_typed_control_text_is_text_unless_asked(byte_base):
    text = "<|im_start|>user\nhi<|im_end|>"
    start, end = byte_base.id_of("<|im_start|>"), byte_base.id_of("<|im_end|>")
    assert start not in byte_base.encode(text)
    read = byte_base.encode(text, special=True)
    assert read == [start, *byte_base.encode("user\nhi"), end]
    assert byte_base.decode(read) == "user\nhi"
    assert byte_base.decode(read, special=True) == text


def test_added_tokens_that_are_not_special_are_read_from_text(byte_base):
    call = byte_base.id_of("<tool_call>")
    assert byte_base.encode("a<tool_call>b") == [*byte_base.encode("a"), call, *byte_base.encode("b")]
    assert byte_base.decode([call]) == "<tool_call>"
    assert "<tool_call>" not in byte_base.mergeable_pieces


def test_pieces(byte_base):
    assert byte_base.byte_ids.tolist() == [byte_base.id_of(to_alphabet(bytes([byte]))) for byte in range(256)]
    space = byte_base.encode(" the")[0]
    assert byte_base.piece(space).startswith("\u0120") and byte_base.piece_bytes(space).startswith(b" ")
    assert byte_base.encode_piece(to_alphabet("ก".encode()[:2])) == byte_base.byte_ids[list("ก".encode()[:2])].tolist()


def test_a_piece_encodes_as_its_merges_make_it(byte_base):
    """Llama 3's flag takes words that are pieces whole, whether or not merges make them."""
    merges = byte_base.spec["model"]["merges"]
    left, right = merges[-1]
    model = byte_base.spec["model"] | {"merges": merges[:-1], "ignore_merges": True}
    tokenizer = ByteLevelTokenizer(byte_base.spec | {"model": model}, byte_base.config)
    whole = left + right
    assert tokenizer.encode(from_alphabet(whole).decode()) == [tokenizer.id_of(whole)] == byte_base.encode_piece(whole)
    assert tokenizer.encode_piece(whole) == [tokenizer.id_of(left), tokenizer.id_of(right)]


def test_errors(byte_base):
    with pytest.raises(SeallmError, match="outside the vocabulary"):
        byte_base.decode([byte_base.size])
    for encode in (byte_base.encode, lambda text: byte_base.encode_batch([text], dropout=0.5)):
        with pytest.raises(SeallmError, match=r"lone surrogate U\+D800 at character 1"):
            encode("a\ud800")
    with pytest.raises(SeallmError, match="text 1 has the lone surrogate"):
        byte_base.encode_batch(["fine", "\udfff"])
    with pytest.raises(SeallmError, match="names no eos_token"):
        ByteLevelTokenizer(byte_base.spec, {})
    with pytest.raises(SeallmError, match="bos_token is '<s>', which is not in the vocabulary"):
        ByteLevelTokenizer(byte_base.spec, byte_base.config | {"bos_token": "<s>"})


def test_ids_have_to_be_dense(byte_base):
    spec = json.loads(json.dumps(byte_base.spec))
    spec["added_tokens"][-1]["id"] += 1
    with pytest.raises(SeallmError, match=f"no token has the id {byte_base.size - 1}, but ids go up to"):
        ByteLevelTokenizer(spec, byte_base.config)
    spec["added_tokens"][-1]["id"] = 5
    with pytest.raises(SeallmError, match="have the id 5"):
        ByteLevelTokenizer(spec, byte_base.config)


def test_decode_takes_arrays_and_partial_characters(byte_base):
    ids = byte_base.encode("กข")
    assert byte_base.decode(np.asarray(ids, np.int32)) == "กข"
    assert byte_base.decode(byte_base.encode("ก")[:-1]) == "\ufffd"


def test_ignore_merges_takes_whole_words(byte_base):
    """As Llama 3 declares: a word in the vocabulary is its piece whatever merges would make of it."""
    spec = json.loads(json.dumps(byte_base.spec))
    spec["model"]["vocab"]["zqzqz"] = byte_base.size
    assert len(ByteLevelTokenizer(spec, byte_base.config).encode("zqzqz")) > 1
    spec["model"]["ignore_merges"] = True
    ours = ByteLevelTokenizer(spec, byte_base.config)
    assert ours.encode("zqzqz") == [byte_base.size] and len(ours.encode("zqzqza")) > 1
