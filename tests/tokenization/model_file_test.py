"""What is refused as a base, and which added tokens are taken over."""

import io
import json

import numpy as np
import pytest
import sentencepiece

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.model_file import CONTROL, NORMAL, append_pieces
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer


def train(texts, **options):
    model = io.BytesIO()
    settings = dict(
        model_type="bpe",
        vocab_size=700,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **(settings | options))
    return model.getvalue()


@pytest.fixture(scope="module")
def lines(sample_texts):
    return [line for text in sample_texts["en"][:20] for line in text.split("\n")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram"}, "SentencePiece unigram model; only BPE"),
        ({"model_type": "char"}, "SentencePiece character model"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"loses text: it normalises text \(nmt_nfkc\).*Thai and Lao"),
        ({"remove_extra_whitespaces": True}, "removes repeated spaces"),
        ({"byte_fallback": False}, "no byte fallback"),
        ({"treat_whitespace_as_suffix": True}, "leading U.2581"),
        ({"bos_id": -1}, "no BOS token"),
        ({"user_defined_symbols": ["a b"]}, "user-defined piece"),
    ],
)
def test_models_that_would_lose_text_are_refused(lines, tmp_path, options, message):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train(lines, **options))
    with pytest.raises(SeallmError, match=message):
        Tokenizer.load(path)


def test_the_refused_normaliser_does_lose_thai(lines, sample_texts):
    """Why nmt_nfkc is refused: SentencePiece itself does not give the text back."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=train(lines, normalization_rule_name="nmt_nfkc"))
    assert processor.decode(processor.encode("น้ำ")) != "น้ำ"


@pytest.mark.parametrize("data", [b"", b"not a model", b'{"version": "1.0"}', bytes(range(256)) * 4])
def test_other_files_are_refused(tmp_path, data):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(SeallmError, match="is not a SentencePiece model"):
        Tokenizer.load(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SeallmError, match="nothing does not exist"):
        Tokenizer.load(tmp_path / "nothing")
    with pytest.raises(SeallmError, match=r"has no tokenizer\.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SeallmError, match=r"no tokenizer\.model; load a byte-level BPE tokenizer"):
        SentencePieceTokenizer.load(tmp_path)


def test_a_rank_file_is_told_from_a_sentencepiece_model(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(SeallmError, match=r"is a rank file of tiktoken \(Llama 3\)"):
        Tokenizer.load(tmp_path)


def declare(directory, tokens):
    declared = {str(index): {"content": token, "special": special} for index, token, special in tokens}
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": declared}))


def test_added_tokens_of_a_checkpoint_keep_their_ids(prefixed_base, tmp_path):
    size = prefixed_base.size
    (tmp_path / "tokenizer.model").write_bytes(prefixed_base.model)
    declare(tmp_path, [(1, "<s>", True), (size, "<|im_start|>", True), (size + 1, "<tool>", False)])
    loaded = Tokenizer.load(tmp_path)
    assert loaded.size == size + 2
    assert loaded.special_tokens["<|im_start|>"] == size
    assert loaded.encode("a<tool>b")[-2] == size + 1  # an ordinary added token is read from text
    assert loaded.encode("hello there") == prefixed_base.encode("hello there")


def test_a_renamed_reserved_token_is_taken_over(base, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(base.model)
    declare(tmp_path, [(3, "<|reserved|>", True)])
    assert Tokenizer.load(tmp_path).special_tokens["<|reserved|>"] == 3


def test_added_tokens_that_cannot_be_kept_are_errors(base, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(base.model)
    declare(tmp_path, [(base.size + 5, "<far>", True)])
    with pytest.raises(SeallmError, match="a gap cannot be kept"):
        Tokenizer.load(tmp_path)
    declare(tmp_path, [(500, "<clash>", True)])
    with pytest.raises(SeallmError, match="id 500 is"):
        Tokenizer.load(tmp_path)


def test_new_scores_fall_strictly_below_the_old_in_float32(mistral):
    proto = mistral.copy_proto()
    lowest = min(piece.score for piece in proto.pieces if piece.type == NORMAL)
    assert lowest == -1e9  # the whitespace pieces
    append_pieces(proto, [f"new{index}" for index in range(40_000)], control=["<a>"])
    assert proto.pieces[32000].type == CONTROL
    scores = np.asarray([piece.score for piece in proto.pieces[32001:]], np.float32)
    assert scores[0] < lowest and (np.diff(scores) < 0).all()
