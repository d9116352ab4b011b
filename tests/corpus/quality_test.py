"""The quality classifier: what it learns, its probabilities, its file."""

import random

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.quality import MINIMUM_EXAMPLES, QualityClassifier, area_under_curve

SPAM = ["klik", "beli", "murah", "promo", "diskon", "gratis", "hadiah", "jackpot", "slot", "bonus", "deposit", "menang"]


def examples() -> tuple[list[str], list[str]]:
    """Paragraphs of the sample; and the same paragraphs cut up and mixed with advertisement, in all its languages."""
    rng = random.Random(0)
    good, bad = [], []
    for code in ("id", "km"):
        for record in read_jsonl(sample_path("corpus") / f"{code}.jsonl"):
            for line in record["text"].split("\n"):
                if len(line) > 60:
                    good.append(line)
                    pieces = [line[i : i + 12] for i in range(0, len(line) // 2, 12)]
                    pieces += rng.choices(SPAM, k=len(pieces) // 3 + 1)
                    rng.shuffle(pieces)
                    bad.append(" ".join(pieces))
    return good, bad


@pytest.fixture(scope="module")
def trained() -> QualityClassifier:
    good, bad = examples()
    return QualityClassifier.train(good[::2], bad[::2])


def test_held_out_texts(trained):
    good, bad = (np.array([trained.score(text) for text in texts[1::2]]) for texts in examples())
    assert area_under_curve(good, bad) > 0.97
    assert trained.information["held_out_auc"] > 0.95
    # calibrated: of the texts with a score near p, a share near p is good (both kinds are equally many)
    scores, labels = np.concatenate([good, bad]), np.repeat([1, 0], [len(good), len(bad)])
    error = sum(
        abs(scores[chosen].mean() - labels[chosen].mean()) * chosen.mean()
        for lower in np.arange(0, 1, 0.2)
        if (chosen := (scores >= lower) & (scores <= lower + 0.2)).any()
    )
    assert error < 0.1
    assert ((scores >= 0) & (scores <= 1)).all()


def test_order_does_not_matter_and_nothing_is_random(trained):
    good, bad = examples()
    again = QualityClassifier.train(reversed(good[::2]), reversed(bad[::2]))
    np.testing.assert_array_equal(again.weights, trained.weights)
    assert again.offset == trained.offset


def test_length_does_not_matter(trained):
    good, _ = examples()
    assert trained.score(good[1]) == pytest.approx(trained.score("\n".join([good[1]] * 6)), abs=0.1)


def test_file(trained, tmp_path):
    path = tmp_path / "quality.npz"
    trained.save(path)
    loaded = QualityClassifier.load(path)
    assert loaded.information == trained.information
    for text in ("", "a", "Hujan turun sepanjang sore.", "\ud800", "klik di sini " * 500):
        assert loaded.score(text) == trained.score(text)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeallmError, match="is no quality classifier"):
        QualityClassifier.load(path)
    with pytest.raises(SeallmError, match="does not exist"):
        QualityClassifier.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", header=np.array('{"format": "x"}'), weights=np.zeros(3))
    with pytest.raises(SeallmError, match="train it again"):
        QualityClassifier.load(tmp_path / "other.npz")


def test_too_few_examples():
    with pytest.raises(SeallmError, match=f"needs {MINIMUM_EXAMPLES} bad texts, got 1"):
        QualityClassifier.train([f"teks {i}" for i in range(30)], ["sama"] * 30)


def test_area_under_curve_by_pairs():
    rng = np.random.default_rng(0)
    good, bad = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    pairs = np.mean([(a > b) + 0.5 * (a == b) for a in good for b in bad])
    assert area_under_curve(good, bad) == pytest.approx(pairs)
