"""Words of a byte-level tokenizer against what its own pre-tokenizer and encoder say."""

import collections

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import to_alphabet
from seallm_jax.tokenization.byte_level_pattern import mark_aware
from seallm_jax.tokenization.byte_level_words import ByteLevelTable

TEXTS = st.lists(st.text("ab 1.\n\t\u00a0'sกา้", max_size=20), max_size=6)


def counted(words):
    blocks = np.split(words.symbols, np.cumsum(words.lengths)[:-1]) if len(words.lengths) else []
    return {tuple(block.tolist()): int(count) for block, count in zip(blocks, words.counts, strict=True)}


@pytest.mark.parametrize("aware", [False, True])
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(texts=TEXTS)
def test_words_are_those_of_the_encoder(byte_base, aware, texts):
    tokenizer = mark_aware(byte_base) if aware else byte_base
    expected = collections.Counter()
    for text in texts:
        encoding = tokenizer._backend.encode(text)
        for word in set(encoding.word_ids):
            ids = [index for index, of in zip(encoding.ids, encoding.word_ids, strict=True) if of == word]
            expected[tuple(ids)] += len(ids) > 1
    words = ByteLevelTable(tokenizer).words(texts)
    assert counted(words) == dict(+expected)
    assert words.size == sum(len(text.encode()) for text in texts) and words.threshold == 1


def test_pieces_for_people(byte_base):
    whole, part = (to_alphabet(data) for data in (" น้ำ".encode(), "น".encode()[:2]))
    table = ByteLevelTable(byte_base)
    assert (table.readable(whole), table.readable(part)) == (" น้ำ", "\ufffd")


def test_a_lone_surrogate_is_refused(byte_base):
    with pytest.raises(SeallmError, match="lone surrogate"):
        ByteLevelTable(byte_base).words(["a\ud800"])
