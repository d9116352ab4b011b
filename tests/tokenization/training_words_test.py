"""Words of several languages and their weights."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.training_words import TrainingWords
from tests.tokenization.conftest import extension_settings


def read(base, texts, **changes):
    return TrainingWords.read(base, texts, ["abc"], extension_settings(**changes))


def test_languages_weigh_by_size_to_the_power_of_alpha(base):
    texts = {"th": ["ก" * 400], "lo": ["ກ" * 100], "km": []}
    for alpha in (0.0, 0.5, 1.0):
        found = read(base, texts, alpha=alpha)
        sizes = [words.size for words in found.words[:3]]
        assert sizes == [1200, 300, 0]
        shares = [size * factor for size, factor in zip(sizes, found.factors[:3], strict=True)]
        assert shares[1] / shares[0] == pytest.approx(0.25**alpha)
        assert found.factors[3] is None and found.languages == ("th", "lo", "km")


def test_what_small_languages_leave_is_for_the_next(base):
    texts = {"lo": ["ກຂ"], "th": [" ".join("ก" * length for length in range(2, 60))]}
    assert read(base, texts, maximum_symbols=4096).words[1].threshold == 1
    assert read(base, texts, maximum_symbols=1024).words[1].threshold > 1


def test_vocabularies_in_the_place_of_text(base):
    found = TrainingWords.of_pieces(base, [["กขค", "คง", "\u2581qxz"], ["ญฎ"]])
    assert [sorted(words.counts.tolist()) for words in found.words] == [[1, 1, 3], [1], []]
    assert found.factors == [1.0, 1.0, None]


def test_no_text(base):
    with pytest.raises(SeallmError, match="there is no text"):
        read(base, {"th": [], "lo": [""]})
