"""Languages told apart by their words: naive Bayes over a committed list of words and how frequent they are."""

from __future__ import annotations

import collections
import functools
import math
import pathlib
import re

import numpy as np

from seallm_jax.core.errors import SeallmError

WORDS_FILE = pathlib.Path(__file__).with_name("language_words.txt")
# share of a word in running text by its class in the file, and of a word that is not listed for a language
FREQUENCY = {"1": 1e-2, "2": 1.5e-3, "3": 3e-4}
UNLISTED = 3e-5
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ENDINGS = (5, 4, 3, 2, 1)  # lengths of the endings that are listed with a hyphen
_PLAIN_E = str.maketrans("éèêë", "eeee")


class LanguageWords:
    """Log-likelihoods of a text under each language of a word list.

    Attributes:
      languages: the codes in the list, sorted.
    """

    def __init__(self, path: pathlib.Path = WORDS_FILE):
        """Reads a word list. Raises SeallmError for a line that is not `CODES CLASS: WORDS`."""
        classes: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            head, _, words = line.partition(":")
            *codes, frequency = head.split()
            if frequency not in FREQUENCY or not codes:
                raise SeallmError(f"{path}:{number}: a line begins with language codes and a class of 1 to 3")
            for word in words.split():
                for code in codes:
                    classes[word][code] = min(frequency, classes[word].get(code, frequency))
        self.languages = tuple(sorted({code for found in classes.values() for code in found}))
        self._row = {word: index for index, word in enumerate(classes)}
        self._find = functools.lru_cache(maxsize=1 << 17)(self._find_row)
        self._gain = np.array(
            [
                [math.log(FREQUENCY[found[code]] / UNLISTED) if code in found else 0.0 for code in self.languages]
                for found in classes.values()
            ],
            np.float32,
        )
        self._core = {
            code: frozenset(word for word, found in classes.items() if found.get(code) == "1")
            for code in self.languages
        }

    def scores(self, text: str) -> tuple[np.ndarray, int]:
        """Log-likelihood of each language against a text of unlisted words, and the number of words read.

        An ending speaks for a word that is not listed. What repeats counts with the logarithm of its number: a topic is
        no proof of a language.
        """
        tokens = text.lower().split()
        counts = collections.Counter(map(self._find, tokens))
        counts.pop(None, 0)
        if not counts:
            return np.zeros(len(self.languages), np.float32), len(tokens)
        weights = np.log2(1 + np.fromiter(counts.values(), np.float32, len(counts)))
        return weights @ self._gain[np.fromiter(counts, np.intp, len(counts))], len(tokens)

    def _find_row(self, token: str) -> int | None:
        """Row of the word in a run of characters without space, or else of its longest listed ending."""
        match = _WORD.search(token)
        if match is None:
            return None
        row, word = self._row, match[0].translate(_PLAIN_E)
        endings = (row[ending] for size in _ENDINGS if (ending := "-" + word[-size:]) in row)
        return row[word] if word in row else next(endings, None)

    def function_words(self, language: str) -> frozenset[str]:
        """The most frequent words of a language; empty for a language that is not in the list."""
        return self._core.get(language, frozenset())


@functools.cache
def language_words() -> LanguageWords:
    """The committed word list, read once."""
    return LanguageWords()
