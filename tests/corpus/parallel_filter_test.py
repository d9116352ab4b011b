"""Which pairs are translations."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.language import identify_language
from seallm_jax.corpus.parallel import language_pairs, read_parallel
from seallm_jax.corpus.parallel_filter import RELATIVE_LENGTHS, length_ratio, parallel_reason

ENGLISH = "The market was full of people this morning because of the holiday."
INDONESIAN = "Pasar penuh orang pagi ini karena hari libur, jadi kami pulang lebih awal."


@pytest.mark.parametrize(
    ("a", "b", "languages", "similarity", "reason"),
    [
        (ENGLISH, INDONESIAN, ("en", "id"), 0.9, None),
        (ENGLISH, INDONESIAN, ("en", "id"), None, None),
        (ENGLISH, INDONESIAN, ("en", "id"), 0.4, "low similarity"),
        ("", INDONESIAN, ("en", "id"), None, "empty side"),
        ("a", INDONESIAN, ("en", "id"), None, "too short"),
        (ENGLISH, ENGLISH.upper(), ("en", "id"), None, "identical sides"),
        (ENGLISH, "Pasar ramai.", ("en", "id"), None, "length ratio"),
        (ENGLISH, ENGLISH.replace("market", "street"), ("en", "id"), None, "wrong language"),
        (ENGLISH, INDONESIAN, ("en", "th"), None, "wrong language"),
        (ENGLISH, INDONESIAN, ("en", "ms"), None, None),  # too close to tell
        ("Yes", "Ya", ("en", "id"), None, None),
    ],
)
def test_reasons(a, b, languages, similarity, reason):
    assert (
        parallel_reason(a, b, languages, similarity, ParallelConfig(minimum_similarity=0.5), identify_language)
        == reason
    )


def test_the_sample_is_kept():
    sentences = read_parallel(sample_path("parallel"))
    for a, b in language_pairs(list(sentences)) + [("km", "th"), ("lo", "my")]:
        for pair in zip(sentences[a], sentences[b], strict=True):
            assert parallel_reason(*pair, (a, b), None, ParallelConfig(), identify_language) is None


@settings(deadline=None)
@given(st.sampled_from(sorted(RELATIVE_LENGTHS)), st.integers(0, 500), st.integers(0, 500))
def test_ratio_has_no_direction(language, a, b):
    ratio = length_ratio("a" * a, "b" * b, ("en", language))
    assert ratio == length_ratio("b" * b, "a" * a, (language, "en")) >= 1
    assert length_ratio("a" * a, "b" * a, (language, language)) == 1
