"""Vocabularies of other tokenizers, and lists, as donors."""

import io
import json
import pathlib

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.donor import read_donor


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_model_of_any_type_and_normalisation(sample_texts, tmp_path, kind):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample_texts["th"]), model_writer=model, model_type=kind, vocab_size=200, minloglevel=2
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    expected = [processor.id_to_piece(index) for index in range(3, processor.get_piece_size())]
    assert list(read_donor(tmp_path)) == [piece for piece in expected if piece != "▁"]


def test_own_tokenizer_leaves_out_bytes_and_special_tokens(base, tmp_path):
    base.save(tmp_path)
    pieces = read_donor(tmp_path)
    assert set(pieces) == {piece for piece in base.mergeable_pieces if piece.strip("▁")}
    (tmp_path / "tokenizer.model").unlink()
    assert set(read_donor(tmp_path)) == set(pieces)  # tokenizer.json has the same


def test_byte_level_tokenizer(sample_texts, tmp_path):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sample_texts["en"], *sample_texts["th"]], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    pieces = read_donor(tmp_path)
    assert "▁the" in pieces and "ก" in pieces
    assert not any("Ġ" in piece or "end|" in piece or " " in piece for piece in pieces)


def test_tekken():
    path = pathlib.Path(pytest.importorskip("mistral_common").__file__).parent / "data"
    files = sorted(path.glob("tekken_*.json"))
    if not files:
        pytest.skip("this mistral-common has no tekken file")
    pieces = read_donor(files[-1])
    assert "▁the" in pieces and "ประเทศ" in pieces and len(pieces) > 100_000


def test_wordpiece(tmp_path):
    tokenizer = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "kucing": 1, "##nya": 2}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_donor(tmp_path) == ("▁kucing", "nya")


def test_lists(tmp_path):
    (tmp_path / "pieces.txt").write_text("▁kucing\n anjing\nnya\nnya\n\n", encoding="utf-8")
    assert read_donor(tmp_path / "pieces.txt") == ("▁kucing", "▁anjing", "nya")
    (tmp_path / "list.json").write_text(json.dumps(["กา", " "]))
    assert read_donor(tmp_path / "list.json") == ("กา",)
    (tmp_path / "vocab.json").write_text(json.dumps({"b": 1, "a": 0}))
    assert read_donor(tmp_path / "vocab.json") == ("a", "b")


def test_wrong_use(tmp_path):
    with pytest.raises(SeallmError, match="does not exist; a donor is"):
        read_donor(tmp_path / "none.model")
    with pytest.raises(SeallmError, match="has no vocabulary: none of"):
        read_donor(tmp_path)
    (tmp_path / "a.model").write_bytes(b"nonsense")
    with pytest.raises(SeallmError, match="not a SentencePiece model"):
        read_donor(tmp_path / "a.model")
    for content in ("[1, 2]", '{"vocabulary": ["a"]}', "3"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(SeallmError, match="neither a tokenizer nor a list"):
            read_donor(tmp_path / "a.json")
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(SeallmError, match="holds no pieces"):
        read_donor(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SeallmError, match="not UTF-8"):
        read_donor(tmp_path / "b.txt")
