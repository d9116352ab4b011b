"""Weights of the old tokens that new ones were made of."""

from __future__ import annotations

import numpy as np
import pytest

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.row_sources import aligned_weights, first_weights, mean_weights


def aligned(extension, base, texts):
    return aligned_weights(extension, base, texts, default=mean_weights(extension), progress=Progress.silent())


def owners(tokenizer, ids) -> list[int]:
    """The id at each byte of a text."""
    return [index for index in ids for _ in tokenizer.piece_bytes(int(index))]


@pytest.mark.parametrize("names", [("base", "extension"), ("prefixed_base", "prefixed_extension")])
def test_aligned_weights_are_shares_of_bytes(request, new_texts, names):
    """Against a count byte by byte."""
    base, extension = (request.getfixturevalue(name) for name in names)
    texts = [text for group in new_texts.values() for text in group[:4]]
    expected = np.zeros((len(extension.new_pieces), extension.base_size))
    for text in texts:
        extended = extension.tokenizer
        for old, new in zip(owners(base, base.encode(text)), owners(extended, extended.encode(text)), strict=True):
            if new >= extension.base_size:
                expected[new - extension.base_size, old] += 1
    seen = expected.sum(axis=1) > 0
    assert 0.2 < seen.mean() < 1
    found = aligned(extension, base, texts).toarray()
    np.testing.assert_allclose(found[seen], expected[seen] / expected[seen].sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(found[~seen], mean_weights(extension).toarray()[~seen])


def test_aligned_weights_do_not_depend_on_the_blocks(extension, base, new_texts, monkeypatch):
    texts = [text for group in new_texts.values() for text in group[:2]]
    whole = aligned(extension, base, texts)
    monkeypatch.setattr("seallm_jax.tokenization.row_sources.TEXTS_AT_ONCE", 3)
    assert abs(aligned(extension, base, [*texts, ""]) - whole).max() < 1e-6


def test_mean_and_first(extension):
    mean, first = mean_weights(extension).toarray(), first_weights(extension).toarray()
    for index, ids in enumerate(extension.source_ids):
        expected = np.bincount(ids, minlength=extension.base_size) / len(ids)
        np.testing.assert_allclose(mean[index], expected, rtol=1e-6)
        assert np.flatnonzero(first[index]).tolist() == [ids[0]]
    np.testing.assert_array_equal(first.sum(axis=1), 1)
