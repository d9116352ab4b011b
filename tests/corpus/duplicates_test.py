"""Exact and near duplicates, against exact Jaccard similarity."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.duplicates import DuplicateFilter, shingle_hashes


@given(st.text(min_size=1, max_size=60), st.integers(1, 6))
def test_one_hash_a_distinct_shingle(text, ngram):
    width = max(1, min(ngram, len(text)))
    shingles = {text[i : i + width] for i in range(len(text) - width + 1)}
    assert len(shingle_hashes(text, ngram)) == len(shingles)  # no collisions on texts this small


def test_exact_ignores_case_and_space():
    duplicates = DuplicateFilter(near=False, threshold=0.8, ngram=5)
    assert duplicates.reason("Selamat  pagi,\nIbu") is None
    assert duplicates.reason("selamat pagi, ibu ") == "exact duplicate"
    assert duplicates.reason("selamat pagi, bapak") is None


def test_near_follows_jaccard():
    generator = random.Random(0)
    duplicates = DuplicateFilter(near=True, threshold=0.8, ngram=5)
    base = "".join(generator.choice("กขคงจฉชซณดตถทธนบปผพ") for _ in range(2000))
    assert duplicates.reason(base) is None
    for share, expected in ((0.98, "near duplicate"), (0.4, None)):
        cut = int(len(base) * share)
        changed = base[:cut] + "".join(generator.choice("กขคงจฉชซณดตถทธน") for _ in range(len(base) - cut))
        a, b = set(shingle_hashes(base, 5)), set(shingle_hashes(changed, 5))
        jaccard = len(a & b) / len(a | b)
        assert (jaccard > 0.9) == (expected is not None)
        assert duplicates.reason(changed) == expected


def test_hashes_do_not_depend_on_position():
    a = shingle_hashes("xxสวัสดีครับ", 4)
    b = shingle_hashes("สวัสดีครับyy", 4)
    assert len(np.intersect1d(a, b)) == len(shingle_hashes("สวัสดีครับ", 4))
