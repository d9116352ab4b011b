"""Packed scores are those of each text alone."""

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.evaluation.rows import ScoredText
from seallm_jax.evaluation.scorer import Scorer, _log_probabilities

LENGTH = 32


def random_texts(count, longest, seed=0):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, longest + 1, count)
    texts = [generator.integers(0, 257, length).astype(np.int32) for length in lengths]
    return [ScoredText(ids, int(generator.integers(1, len(ids)))) for ids in texts]


def test_packed_scores_are_those_of_each_text_alone(scorer, alone):
    texts = random_texts(25, LENGTH + 1)
    for text, score in zip(texts, scorer.score(texts), strict=True):
        assert score.tokens == len(text.ids) - text.start
        assert score.log_probability == pytest.approx(alone(text.ids, text.start), rel=1e-5)


def test_a_long_text_is_scored_in_windows_without_losing_a_token(scorer, alone):
    ids = np.random.default_rng(1).integers(0, 257, 3 * LENGTH + 10).astype(np.int32)
    (score,) = scorer.score([ScoredText(ids)])
    windows = [ids[first : first + LENGTH + 1] for first in range(0, len(ids) - 1, LENGTH)]
    assert score.tokens == len(ids) - 1
    assert score.log_probability == pytest.approx(sum(alone(window) for window in windows), rel=1e-5)


def test_a_mesh_does_not_change_the_scores(scorer, decoder):
    texts = random_texts(12, 50)
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = Scorer(decoder(), sequence_length=LENGTH, batch_rows=8, mesh=mesh)
    expected = [score.log_probability for score in scorer.score(texts)]
    np.testing.assert_allclose([score.log_probability for score in spread.score(texts)], expected, rtol=1e-5)


def test_one_compilation_serves_texts_and_models_of_one_shape(scorer, decoder):
    scorer.score(random_texts(3, 60))
    before = _log_probabilities._cache_size()
    scorer.score(random_texts(40, 10))
    Scorer(decoder(0.5), sequence_length=LENGTH, batch_rows=8).score(random_texts(1, 5))
    assert _log_probabilities._cache_size() == before


def test_nothing_to_score(scorer):
    assert scorer.score([]) == []
    (score,) = scorer.score([ScoredText(np.asarray([256], np.int32))])
    assert (score.log_probability, score.tokens) == (0.0, 0)


def test_ids_of_another_tokenizer_are_refused(scorer):
    with pytest.raises(SeallmError, match="token id 257 is outside the model's vocabulary of 257"):
        scorer.score([ScoredText(np.asarray([1, 257], np.int32))])


def test_impossible_sizes_are_refused(decoder):
    with pytest.raises(SeallmError, match="sequence length is 65.*max_positions = 64"):
        Scorer(decoder(), sequence_length=65)
    with pytest.raises(SeallmError, match="batch_rows is 0"):
        Scorer(decoder(), sequence_length=8, batch_rows=0)
