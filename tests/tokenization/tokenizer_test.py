"""What all kinds of tokenizers share: round trips, loading by what is there, and the ids around a document."""

import base64
import json
import shutil

import hypothesis
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.rank_files import QWEN_PATTERN
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.tokenization.conftest import AWKWARD, texts_with_edges


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_survives(every_tokenizer, text):
    assert every_tokenizer.decode(every_tokenizer.encode(text)) == text
    assert every_tokenizer.decode(every_tokenizer.encode(text, bos=True, eos=True)) == text


@hypothesis.settings(
    deadline=None, max_examples=250, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(text=texts_with_edges)
def test_every_string_survives(every_tokenizer, text):
    ids = every_tokenizer.encode(text)
    assert every_tokenizer.decode(ids) == text
    assert not set(ids) & set(every_tokenizer.special_tokens.values()), "text made a control id"
    assert every_tokenizer.encode_batch([text], threads=1)[0].tolist() == ids
    assert every_tokenizer.encode_batch([text])[0].tolist() == ids
    prefix = getattr(every_tokenizer, "adds_prefix", False) and text[:1] not in ("", "\u2581")
    assert every_tokenizer.byte_lengths[ids].sum() == len(text.encode()) + prefix


@pytest.mark.parametrize("kind", ["base", "byte_base"])
def test_every_character_survives(request, kind):
    tokenizer = request.getfixturevalue(kind)
    characters = [chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(characters), 4096):
        text = "".join(characters[start : start + 4096])
        assert tokenizer.decode(tokenizer.encode(text)) == text


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


def test_a_piece_encodes_to_itself_and_its_repetition_to_its_bytes(prefixed_base, byte_base):
    for tokenizer in (prefixed_base, byte_base):
        for index in list(tokenizer.mergeable_pieces.values())[300::7]:
            piece = tokenizer.piece(index)
            assert tokenizer.encode_piece(piece) == [index]
            repeated = b"".join(map(tokenizer.piece_bytes, tokenizer.encode_piece(piece * 3)))
            assert repeated == 3 * tokenizer.piece_bytes(index)


def test_bytes_add_up(base, byte_base, sample_texts):
    for tokenizer in (base, byte_base):
        assert tokenizer.byte_lengths.shape == (tokenizer.size,)
        for text in [documents[0] for documents in sample_texts.values()]:
            ids = tokenizer.encode(text)
            assert b"".join(tokenizer.piece_bytes(index) for index in ids) == text.encode()
            assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
