"""What all kinds of tokenizers share: loading by what is there, and the ids around a document."""

import base64
import json
import shutil

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.rank_files import QWEN_PATTERN
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer


def test_the_kind_is_told_from_the_files(base, byte_base, byte_folder, tmp_path):
    base.save(tmp_path / "sentencepiece")
    for path in (tmp_path / "sentencepiece", tmp_path / "sentencepiece" / "tokenizer.model"):
        assert isinstance(Tokenizer.load(path), SentencePieceTokenizer)
        assert Tokenizer.load(path).digest == base.digest
    for path in (byte_folder, str(byte_folder), byte_folder / "tokenizer.json"):
        assert isinstance(Tokenizer.load(path), ByteLevelTokenizer)
        assert Tokenizer.load(path).digest == byte_base.digest
    folder = tmp_path / "tekken"
    folder.mkdir()
    pieces = [{"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode()} for byte in range(256)]
    config = {"pattern": QWEN_PATTERN, "default_num_special_tokens": 5, "default_vocab_size": 261}
    (folder / "tekken.json").write_text(json.dumps({"config": config, "vocab": pieces}))
    for path in (folder, folder / "tekken.json"):
        assert (Tokenizer.load(path).size, Tokenizer.load(path).encode("a")) == (261, [5 + ord("a")])
    for file in byte_folder.iterdir():  # as Mistral Nemo has both
        shutil.copy(file, folder)
    assert Tokenizer.load(folder).digest == byte_base.digest


def test_nothing_to_load_is_named(tmp_path):
    with pytest.raises(SeallmError, match=r"has no tokenizer\.model, tokenizer\.json"):
        Tokenizer.load(tmp_path)
    for name in ("nothing", "nothing.json", "nothing.model"):
        with pytest.raises(SeallmError, match="does not exist"):
            Tokenizer.load(tmp_path / name)


def test_what_stands_around_a_document(base, byte_base):
    """BOS and EOS; without BOS, what ended the document before; never the end of a chat turn."""
    assert (base.begin_id, base.end_id) == (base.bos_id, base.eos_id)
    end = byte_base.id_of("<|endoftext|>")
    assert byte_base.bos_id is None and byte_base.piece(byte_base.eos_id) == "<|im_end|>"
    assert (byte_base.begin_id, byte_base.end_id) == (end, end)
    ended_by_eos = ByteLevelTokenizer(byte_base.spec, {"eos_token": "<|endoftext|>"})
    assert (ended_by_eos.begin_id, ended_by_eos.end_id, ended_by_eos.pad_id) == (end, end, end)


def test_bytes_add_up(base, byte_base, sample_texts):
    for tokenizer in (base, byte_base):
        assert tokenizer.byte_lengths.shape == (tokenizer.size,)
        for text in [documents[0] for documents in sample_texts.values()]:
            ids = tokenizer.encode(text)
            assert b"".join(tokenizer.piece_bytes(index) for index in ids) == text.encode()
            assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
