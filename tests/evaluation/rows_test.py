"""Rows hold every target once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.evaluation.rows import ScoredRows, ScoredText, cut_context

TEXTS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 50)), max_size=30)


@given(TEXTS, st.integers(1, 12))
def test_every_scored_token_lies_in_exactly_one_place(lengths, sequence_length):
    texts = [ScoredText(np.arange(1, n + 1, dtype=np.int32) + 100 * i, start) for i, (n, start) in enumerate(lengths)]
    packed = ScoredRows(texts, sequence_length)
    batch, owners = packed.batch(0, len(packed))
    scored = batch.loss_weights > 0
    assert sorted(batch.targets[scored]) == sorted(t for text in texts for t in text.ids[text.start :])
    assert not (batch.targets[batch.segment_ids > 0] - batch.tokens[batch.segment_ids > 0] - 1).any()
    assert (owners[scored] == batch.targets[scored] // 100).all()
    assert not scored[batch.segment_ids == 0].any()


@given(TEXTS, st.integers(1, 12))
def test_segments_are_numbered_in_order_and_positions_restart(lengths, sequence_length):
    texts = [ScoredText(np.arange(n, dtype=np.int32)) for n, _ in lengths]
    batch = ScoredRows(texts, sequence_length).batch(0, 40)[0]
    for row in range(40):
        segments = batch.segment_ids[row][batch.segment_ids[row] > 0]
        assert list(batch.segment_ids[row][: len(segments)]) == list(segments)  # padding is at the end
        assert set(np.diff(segments)) <= {0, 1} and (len(segments) == 0 or segments[0] == 1)
        starts = np.flatnonzero(np.diff(segments, prepend=0))
        assert (batch.positions[row][starts] == 0).all()


def test_rows_are_full():
    generator = np.random.default_rng(0)
    texts = [ScoredText(np.zeros(n, np.int32)) for n in generator.integers(2, 200, 2000)]
    packed = ScoredRows(texts, 256)
    assert sum(len(text.ids) - 1 for text in texts) / (len(packed) * 256) > 0.99


@given(st.integers(2, 40), st.data(), st.integers(1, 20))
def test_context_is_cut_behind_the_first_token(length, data, sequence_length):
    start = data.draw(st.integers(1, length - 1))
    cut = cut_context(list(range(length)), start, sequence_length)
    assert list(cut.ids[cut.start :]) == list(range(start, length))  # what is scored stays
    assert cut.ids[0] == 0
    if length > sequence_length + 1:
        assert len(cut.ids) == max(sequence_length + 1, length - start + 1)
    else:
        assert len(cut.ids) == length


def test_the_first_token_cannot_be_scored():
    with pytest.raises(ValueError, match="start is 0"):
        ScoredText(np.zeros(3, np.int32), 0)
