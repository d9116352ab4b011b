"""The word lists: their file, and the likelihood against a computation by hand."""

import math

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.corpus.language_words import FREQUENCY, UNLISTED, LanguageWords, language_words


def test_likelihood_by_hand(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# comment\n\naa bb 1: dan\naa 3: rumah -kan\nbb 2: rumah\n", encoding="utf-8")
    words = LanguageWords(path)
    scores, count = words.scores("Dan, dan rumah «makan» xyz 12")
    gain = {name: math.log(share / UNLISTED) for name, share in FREQUENCY.items()}
    twice = math.log2(3)
    expected = [twice * gain["1"] + gain["3"] + gain["3"], twice * gain["1"] + gain["2"]]
    assert words.languages == ("aa", "bb") and count == 6
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert not words.scores("")[0].any() and words.scores("")[1] == 0


def test_accents_of_e_do_not_count():
    words = language_words()
    np.testing.assert_array_equal(words.scores("téh bodas")[0], words.scores("teh bodas")[0])


def test_committed_lists():
    words = language_words()
    latin = {code for code, (_, script) in KNOWN_LANGUAGES.items() if script == "Latin"}
    assert latin - {"vi"} <= set(words.languages)
    assert all(len(words.function_words(code)) >= 8 for code in latin - {"vi"})
    assert words.function_words("xx") == frozenset()


@pytest.mark.parametrize("line", ["id: dan", "4: dan", "id 7: dan"])
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "words.txt"
    path.write_text(f"# words\n{line}\n", encoding="utf-8")
    with pytest.raises(SeallmError, match="words.txt:2"):
        LanguageWords(path)
