"""Preference accuracy against log-probabilities taken one by one."""

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.evaluation.preference_pairs import PreferencePair
from seallm_jax.evaluation.preferences import preference_accuracy
from seallm_jax.evaluation.rows import ScoredText

LENGTH = 32


def pair_of(language, prompt, chosen, rejected):
    def reply(text):
        return ScoredText(np.asarray([256, *(prompt + text).encode()], np.int32), 1 + len(prompt.encode()))

    return PreferencePair(language, reply(chosen), reply(rejected), len(chosen.encode()), len(rejected.encode()))


PAIRS = [
    pair_of("id", "Apa?", "Air.", "Tidak tahu sama sekali"),
    pair_of("th", "ไร", "น้ำ", "ไฟ"),
    pair_of("id", "Siapa?", "Saya sendiri", "Kamu"),
    pair_of("id", "Kapan?", "Besok", "Besok"),
]


def test_scores_are_those_of_replies_taken_alone(scorer, alone):
    scores = preference_accuracy(scorer, PAIRS)
    expected = np.asarray([[alone(text.ids, text.start) for text in (p.chosen, p.rejected)] for p in PAIRS])
    np.testing.assert_allclose(scores.log_probabilities, expected, rtol=1e-5)
    mine = scores.by_language["id"]
    margins = (expected[:, 0] - expected[:, 1])[[0, 2, 3]]
    assert mine.pairs == 3 and mine.margin == pytest.approx(margins.mean(), rel=1e-4)
    assert mine.accuracy.correct == (margins[:2] > 0).sum() + 0.5  # the last pair is a tie
    sizes = np.asarray([(p.chosen_bytes, p.rejected_bytes) for p in PAIRS])
    normalized = (expected / sizes)[:, 0] - (expected / sizes)[:, 1]
    assert scores.by_language["th"].accuracy_normalized.correct == float(normalized[1] > 0)
    assert mine.implicit_accuracy is None and mine.implicit_margin is None


def test_the_model_is_no_better_than_itself_as_a_reference(scorer):
    first = preference_accuracy(scorer, PAIRS)
    scores = preference_accuracy(scorer, PAIRS, reference=first.log_probabilities)
    assert scores.by_language["id"].implicit_accuracy.value == 0.5
    assert scores.by_language["id"].implicit_margin == 0.0


def test_implicit_rewards_are_relative_to_the_reference(scorer):
    own = preference_accuracy(scorer, PAIRS).log_probabilities
    reference = own + np.asarray([[-1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    scores = preference_accuracy(scorer, PAIRS, reference=reference).by_language
    assert scores["id"].implicit_accuracy.value == 1.0
    assert scores["id"].implicit_margin == pytest.approx(5 / 3)
    assert scores["th"].implicit_accuracy.value == 0.0


def test_long_prompts_are_cut(scorer):
    long = pair_of("id", "x" * 80, "Air", "Api")
    cut = pair_of("id", "x" * (LENGTH - 3), "Air", "Api")
    scores = preference_accuracy(scorer, [long, cut]).log_probabilities
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_json_is_plain(scorer):
    entry = preference_accuracy(scorer, PAIRS).to_json()["th"]
    assert entry["pairs"] == 1 and entry["implicit_accuracy"] is None
    assert entry["accuracy"] == {"value": entry["accuracy"]["value"], "standard_error": None}


def test_wrong_input_is_refused(scorer):
    with pytest.raises(SeallmError, match="no preference pairs"):
        preference_accuracy(scorer, [])
    with pytest.raises(SeallmError, match=r"shape \(2, 2\), not \(4, 2\)"):
        preference_accuracy(scorer, PAIRS, reference=np.zeros((2, 2)))
