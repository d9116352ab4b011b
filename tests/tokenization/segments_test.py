"""How text is cut into words for new merges."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.segments import SymbolTable


@pytest.fixture
def table(base):
    return SymbolTable(base)


def cut(table, text):
    """The words of `text` as strings, with their counts; those of a single old piece are left out."""
    words = table.words([text], threads=1)
    assert words.lengths.sum() == len(words.symbols)
    blocks = np.split(words.symbols, np.cumsum(words.lengths))[:-1]
    found = ["".join(table.piece(int(symbol)) for symbol in block) for block in blocks]
    return dict(zip(found, words.counts.tolist(), strict=True))


def test_words_begin_at_spaces(table):
    assert cut(table, "kabupaten kabupaten qat") == {"kabupaten": 1, "\u2581kabupaten": 1, "\u2581qat": 1}


def test_scripts_and_punctuation_are_kept_apart(table):
    words = set(cut(table, "กขqxzคง(ฉช)"))
    assert {"กข", "qxz", "คง", "ฉช"} <= words
    assert words - {"กข", "qxz", "คง", "ฉช"} <= {"(", ")"}


def test_a_phrase_without_spaces_is_one_word(table):
    assert set(cut(table, "ภาษาไทยเขียนติดกัน")) == {"ภาษาไทยเขียนติดกัน"}


def test_zwsp_digits_and_newlines_stand_alone(table):
    assert set(cut(table, "ກຂ\u200bຄງ")) == {"ກຂ", "\u200b", "ຄງ"}
    assert set(cut(table, "កខ12គឃ")) == {"កខ", "គឃ"}
    assert set(cut(table, "กข\nคง๑๒")) == {"กข", "คง", "๑", "๒"}


def test_joiners_and_combining_marks_belong_to_the_word(table):
    assert set(cut(table, "ក\u200dខ")) == {"ក\u200dខ"}
    assert set(cut(table, "e\u0301x\u0323qz")) == {"e\u0301x\u0323qz"}


def test_pieces_for_people(table):
    assert table.readable("\u2581kuda") == " kuda"


def test_characters_of_two_three_and_four_bytes(table):
    table.words(["é ก 👍 \U0010fffd"], threads=1)
    assert {chr(point) for point in table.characters} >= {"ก", "👍", "\U0010fffd"}
    assert all(table.piece(table.base_size + k) == chr(point) for k, point in enumerate(table.characters))


def test_counts_add_up_over_documents_and_batches(table, monkeypatch):
    monkeypatch.setattr("seallm_jax.tokenization.segments._BATCH_CHARACTERS", 10)
    words = table.words(["ขวด ขวด"] * 7, threads=1)
    assert sorted(words.counts.tolist()) == [7, 7]
    assert words.size == 7 * len("ขวด ขวด".encode())


def test_no_text_has_no_words(table):
    for texts in ([], [""], ["the"]):
        words = table.words(texts, threads=1)
        assert words.lengths.sum() == len(words.symbols)


def whole(tokenizer, text):
    """The words of a text that is not cut into chunks before it is encoded, for comparison."""
    table = SymbolTable(tokenizer)
    table._chunk_pattern, table._separator = re.compile("(?s).+"), -1
    return cut(table, text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab \u00a0\n1.ก\u200b\u0301"), max_size=30))
def test_chunks_change_nothing(base, prefixed_base, text):
    for tokenizer in (base, prefixed_base):
        assert cut(SymbolTable(tokenizer), text) == whole(tokenizer, text)


def test_many_chunks_and_rounds(base, table, monkeypatch):
    monkeypatch.setattr("seallm_jax.tokenization.segments._CHUNKS", 4)
    monkeypatch.setattr("seallm_jax.tokenization.segments._GROUP", 2)
    text = " ".join(f"กา{'ข' * size} qxz" for size in range(1, 12))
    assert cut(SymbolTable(base), text) == whole(base, text)


def test_pieces_as_words(table):
    words = table.words_of_pieces({"\u2581kabupaten": 3, "กข": 2})
    assert sorted(words.counts.tolist()) == [2, 3]
    assert words.size == 3 * len(" kabupaten") + 2 * len("กข".encode())


def test_a_lone_surrogate_is_named(table):
    with pytest.raises(SeallmError, match=r"document 1 has the lone surrogate U\+D800 at character 2"):
        table.words(["ab", "ab\ud800"])
