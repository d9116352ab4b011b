"""From pieces to a tokenizer."""

import dataclasses
import functools

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.assemble import (
    ambiguous,
    append_merges,
    assemble,
    assemble_on_top,
    missing_chat_tokens,
    round_to_multiple,
)


@dataclasses.dataclass(frozen=True)
class Piece:
    text: str


def of_texts(base, control, texts):
    return assemble([Piece(text) for text in texts], functools.partial(append_merges, base, control))


def test_pieces_out_of_reach_are_left_out(base):
    pieces, tokenizer = of_texts(base, [], ["xqjz", "qj", "zqx", "qjq"])
    assert [piece.text for piece in pieces] == ["qj", "qjq"]
    assert tokenizer.encode_fragment("qj") == [base.size]
    assert tokenizer.encode_fragment("qjq") == [base.size + 1]


def test_order_decides_what_is_in_reach(base):
    pieces, _ = of_texts(base, ["<control>"], ["xq", "xqxq", "xqxqxq"])
    assert [piece.text for piece in pieces] == ["xq", "xqxq", "xqxqxq"]


def test_on_top_new_merges_come_first(base):
    assert len(base.encode_fragment(" the")) == 1
    on_top = assemble_on_top(base, [], ["th", "e▁"] if base.id_of("th") is None else ["e▁"])
    assert on_top.encode_fragment("e a")[0] == on_top.id_of("e▁")
    tokenizer = assemble_on_top(base, ["<control>"], ["xqxq", "xq"])
    assert tokenizer.encode_fragment("xq") == [base.size + 2]
    assert tokenizer.piece(base.size) == "<control>"


def test_ambiguous():
    pieces = {"a", "aa", "ab", "aba", "b"}
    assert ambiguous("aaa", pieces)
    assert not ambiguous("aaaa", pieces)  # of aa and aa alone
    assert not ambiguous("abab", pieces)
    assert not ambiguous("abc", pieces)


def test_sizes(base, prefixed_base):
    assert round_to_multiple(32_000, 16_500, 128) == 16_512
    assert round_to_multiple(32_000, 16_512, 128) == 16_512
    assert round_to_multiple(32_000, 16_500, 0) == 16_500
    assert round_to_multiple(1000, 0, 128) == 0
    assert missing_chat_tokens(base, 0) == () and len(missing_chat_tokens(prefixed_base, 3)) == 3
    with pytest.raises(SeallmError, match="no room for the chat tokens"):
        missing_chat_tokens(prefixed_base, 2)
