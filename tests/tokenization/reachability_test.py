"""Tokens that no text encodes to."""

import itertools

from seallm_jax.tokenization.model_file import append_pieces
from seallm_jax.tokenization.reachability import unreachable_tokens
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer


def test_a_trained_tokenizer_reaches_all(base, extension):
    assert unreachable_tokens(base) == []
    assert unreachable_tokens(extension.tokenizer) == []


def test_found_are_those_that_no_text_has(base):
    """Every text of up to six letters is the oracle for pieces made of these letters."""
    proto = base.copy_proto()
    append_pieces(proto, ["xqxq", "xq", "qqx", "qxq", "xqqxq"])
    tokenizer = SentencePieceTokenizer(proto.SerializeToString())
    texts = ["".join(letters) for size in range(1, 7) for letters in itertools.product("xq", repeat=size)]
    used = {index for text in texts for index in tokenizer.encode_fragment(text)}
    new = set(range(base.size, tokenizer.size))
    assert set(unreachable_tokens(tokenizer)) == new - used != set()
    assert unreachable_tokens(tokenizer, first=tokenizer.size) == []
