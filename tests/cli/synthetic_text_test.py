"""Synthetic documents."""

from seallm_jax.cli.synthetic_text import SyntheticText, jaccard


def test_texts_follow_from_the_seed():
    texts = SyntheticText(seed=4).texts(50, (500, 1500))
    assert texts == SyntheticText(seed=4).texts(50, (500, 1500))
    assert min(map(len, texts)) > 400 and max(map(len, texts)) < 1700
    assert max(jaccard(a, b, 5) for a in texts[:8] for b in texts[8:20]) < 0.3
    source = SyntheticText(seed=4)
    assert source.changed(texts[0], 0.0) == texts[0] and jaccard(texts[0], source.changed(texts[0], 0.1), 5) < 1
