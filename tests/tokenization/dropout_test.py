"""BPE-dropout: the distribution against the algorithm written out, determinism, and text that comes back."""

import collections

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.dropout import MergeTable, encode_with_dropout, text_key
from tests.tokenization.conftest import AWKWARD, texts_with_edges

NAMES = ["base", "prefixed_base", "byte_base"]
any_kind = pytest.fixture(params=NAMES)(lambda request: request.getfixturevalue(request.param))


def exact_distribution(merges, symbols, dropout):
    """Segmentation -> probability, by trying all that the paper's algorithm can do."""
    result = collections.Counter()

    def go_on(state, probability):
        found = [
            (merges[pair][0], place) for place, pair in enumerate(zip(state, state[1:], strict=False)) if pair in merges
        ]
        for number, (_, place) in enumerate(sorted(found)):
            joined = (*state[:place], merges[state[place : place + 2]][1], *state[place + 2 :])
            go_on(joined, probability * (1 - dropout) * dropout**number)
        result[state] += probability * dropout ** len(found)

    go_on(tuple(symbols), 1.0)
    return result


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("symbols", [[0, 1, 2, 0, 1], [0, 0, 0, 0], [1, 2, 1, 2]])
def test_the_distribution_is_that_of_the_algorithm(symbols, dropout):
    # a b c; ab, bc, abc from both sides, aa, aaa, aaaa
    merges = {
        (0, 1): (0, 3),
        (1, 2): (1, 4),
        (3, 2): (2, 5),
        (0, 4): (3, 5),
        (0, 0): (4, 6),
        (6, 0): (5, 7),
        (6, 6): (6, 8),
    }
    table = MergeTable.build(
        [(*pair, rank, result) for pair, (rank, result) in merges.items()], [[0, 1, 2], [0, 0, 0, 0], [2, 0], [2, 1]]
    )
    draws = 20_000
    text = np.asarray(symbols, np.int32)
    keys = [text_key("some text", seed) for seed in range(draws)]
    found = encode_with_dropout(table, [text] * draws, [np.zeros(len(text), bool)] * draws, keys, dropout)
    counts = collections.Counter(tuple(ids.tolist()) for ids in found)
    expected = exact_distribution(merges, symbols, dropout)
    assert abs(sum(expected.values()) - 1) < 1e-9 and set(counts) <= set(expected)
    for segmentation, probability in expected.items():
        deviation = 5 * np.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[segmentation] - draws * probability) < deviation, segmentation


@hypothesis.settings(
    deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(text=texts_with_edges, dropout=st.sampled_from([0.1, 0.5, 0.99]), seed=st.integers(0, 9))
def test_every_string_survives(any_kind, text, dropout, seed):
    [ids] = any_kind.encode_batch([text], dropout=dropout, seed=seed)
    assert ids.dtype == np.int32 and any_kind.decode(ids) == text
    assert not set(ids.tolist()) & set(any_kind.special_tokens.values())


@hypothesis.settings(
    deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(text=texts_with_edges)
def test_without_dropout_the_merges_are_those_of_the_library(any_kind, text):
    """The path that dropout takes, with nothing dropped, against SentencePiece and tokenizers."""
    assert any_kind._with_dropout([text], 0.0, 0)[0].tolist() == any_kind.encode(text)


@pytest.mark.parametrize("name", ["qwen", "tekken", "mistral", "extension"])
def test_without_dropout_whole_documents_are_as_they_were(request, name, sample_texts):
    tokenizer = request.getfixturevalue(name)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    texts = [*AWKWARD, *(text for documents in sample_texts.values() for text in documents[:5])]
    found = tokenizer._with_dropout(texts, 0.0, 0)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in tokenizer.encode_batch(texts, dropout=0)]
    varied = tokenizer.encode_batch(texts, dropout=0.1, seed=1)
    assert [tokenizer.decode(ids) for ids in varied] == texts
    assert sum(map(len, varied)) > sum(map(len, found))


def test_a_text_is_segmented_alike_in_any_company(any_kind, sample_texts):
    texts = [*AWKWARD, *sample_texts["en"][:10], *sample_texts["th"][:10]]
    together = [ids.tolist() for ids in any_kind.encode_batch(texts, dropout=0.3, seed=7)]
    for threads in (1, 2):
        backwards = any_kind.encode_batch(texts[::-1], dropout=0.3, seed=7, threads=threads)[::-1]
        assert [ids.tolist() for ids in backwards] == together
    assert [any_kind.encode_batch([text], dropout=0.3, seed=7)[0].tolist() for text in texts] == together
    assert [ids.tolist() for ids in any_kind.encode_batch(texts, dropout=0.3, seed=8)] != together
    assert any_kind.encode_batch([], dropout=0.3) == []


def test_more_dropout_is_more_tokens(any_kind, sample_texts):
    texts = sample_texts["en"][:20]
    sizes = [
        sum(map(len, any_kind.encode_batch(texts, dropout=dropout, seed=0))) for dropout in (0, 0.1, 0.5, 0.9, 0.99)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 5


def test_a_word_that_repeats_varies_within_a_text(byte_base):
    [ids] = byte_base.encode_batch([" there" * 200], dropout=0.3, seed=0)
    words = " ".join(map(str, ids)).split(str(byte_base.encode(" there")[0]))
    assert len(set(words)) > 2


def test_dropout_must_be_a_probability(any_kind):
    for dropout in (-0.1, 1.0, 2):
        with pytest.raises(SeallmError, match="must be at least 0 and below 1"):
            any_kind.encode_batch(["a"], dropout=dropout)
