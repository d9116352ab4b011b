"""MinHash signatures against exact Jaccard similarity, and bands against the theory and datasketch."""

import random

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.minhash import (
    MinHash,
    band_keys,
    candidate_probability,
    choose_bands,
    estimated_similarity,
)

LETTERS = "กขคงจฉชซณดตถทธนบปผพฟภมยรลวศษสหฬอฮ"


def shingles(text: str, ngram: int = 5) -> set[str]:
    return {text[i : i + ngram] for i in range(len(text) - ngram + 1)} or {text}


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def pair(generator: random.Random, length: int, share: float) -> tuple[str, str]:
    """Two texts of which about `share` is common."""
    text = "".join(generator.choice(LETTERS) for _ in range(length))
    cut = round(length * share)
    return text, text[:cut] + "".join(generator.choice(LETTERS) for _ in range(length - cut))


@given(st.lists(st.text(max_size=30), max_size=8), st.sampled_from([16, 64]), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_text_has_the_same_signature_in_any_company(texts, num_hashes, ngram):
    minhash = MinHash(num_hashes=num_hashes, ngram=ngram)
    together = minhash.signatures(texts)
    assert together.shape == (len(texts), num_hashes) and together.dtype == np.uint16
    for text, signature in zip(texts, together, strict=True):
        assert np.array_equal(minhash.signatures([text])[0], signature)


@given(st.text(min_size=6, max_size=30), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_counts_of_ngrams_do_not_matter(text, times):
    minhash = MinHash(num_hashes=64, ngram=5)
    assert np.array_equal(*minhash.signatures([text * 2, text * times]))


@pytest.mark.parametrize("length", [12, 40, 300, 1500])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_estimate_is_unbiased_and_as_sharp_as_classic_minhash(length, share):
    generator = random.Random(length)
    pairs = [pair(generator, length, share) for _ in range(300)]
    minhash = MinHash(num_hashes=128, ngram=5)
    estimates = estimated_similarity(*(minhash.signatures(side) for side in zip(*pairs, strict=True)))
    errors = estimates - [jaccard(*texts) for texts in pairs]
    truth = np.mean([jaccard(*texts) for texts in pairs])
    deviation = (truth * (1 - truth) / 128) ** 0.5  # of 128 independent hash functions
    assert abs(errors.mean()) < 4 * deviation / 300**0.5
    assert errors.std() < 1.15 * deviation


def test_signatures_are_as_good_as_datasketch():
    generator = random.Random(1)
    pairs = [pair(generator, 600, 0.85) for _ in range(100)]
    minhash = MinHash(num_hashes=128, ngram=5)
    ours = estimated_similarity(*(minhash.signatures(side) for side in zip(*pairs, strict=True)))

    def peer(text):
        signature = datasketch.MinHash(num_perm=128)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        return signature

    theirs = np.array([peer(a).jaccard(peer(b)) for a, b in pairs])
    truth = np.array([jaccard(*texts) for texts in pairs])
    assert np.abs(ours - truth).mean() < 1.2 * np.abs(theirs - truth).mean()


@pytest.mark.parametrize(("threshold", "num_hashes"), [(0.5, 128), (0.8, 128), (0.8, 256), (0.95, 64), (1.0, 16)])
def test_longest_bands_with_the_recall(threshold, num_hashes):
    bands, rows = choose_bands(threshold, num_hashes)
    assert bands * rows <= num_hashes
    assert candidate_probability(threshold, bands, rows) >= 0.98
    longer = rows + 1
    assert longer > num_hashes or candidate_probability(threshold, num_hashes // longer, longer) < 0.98


@pytest.mark.parametrize("share", [0.5, 0.75, 0.85, 0.92])
def test_bands_follow_the_s_curve(share):
    generator = random.Random(2)
    pairs = [pair(generator, 500, share) for _ in range(500)]
    minhash = MinHash(num_hashes=128, ngram=5)
    bands, rows = choose_bands(0.8, 128)
    a, b = (band_keys(minhash.signatures(side), bands, rows) for side in zip(*pairs, strict=True))
    assert a.shape == (bands, 500)
    found = (a == b).any(axis=0).mean()
    expected = np.array([candidate_probability(jaccard(*texts), bands, rows) for texts in pairs])
    deviation = (expected * (1 - expected)).sum() ** 0.5 / 500
    assert abs(found - expected.mean()) < 4 * deviation + 0.002
