"""Perplexity under a KenLM model of two words, by hand; the errors without model or package."""

import pathlib
import sys
import types

import pytest

from seallm_jax.core.corpus_config import FilterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.filters import TextFilter
from seallm_jax.corpus.perplexity import load_perplexity_models

# KenLM wants bigrams; the only one is of a word that the tests do not use, and backing off costs nothing
ARPA = """\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-1.0\t<unk>\t0
-99\t<s>\t0
-0.5\t</s>
-0.2\ta\t0
-0.7\tb\t0
-3.0\tz\t0

\\2-grams:
-0.1\tz z

\\end\\
"""
LOG10 = {"a": -0.2, "b": -0.7, "c": -1.0, "</s>": -0.5}


class Model:
    """Scores words one by one, as the unigram file above says."""

    def __init__(self, path):
        if "ngram" not in pathlib.Path(path).read_text(encoding="utf-8"):
            raise OSError(f"Cannot read model '{path}'\nand more")

    def score(self, text):
        return sum(LOG10.get(word, LOG10["c"]) for word in [*text.split(), "</s>"])


@pytest.fixture(params=["stand-in", "kenlm"])
def directory(request, tmp_path, monkeypatch):
    if request.param == "kenlm":
        pytest.importorskip("kenlm")
    else:
        monkeypatch.setitem(sys.modules, "kenlm", types.SimpleNamespace(Model=Model))
    (tmp_path / "id.arpa").write_text(ARPA, encoding="utf-8")
    (tmp_path / "th.characters.arpa").write_text(ARPA, encoding="utf-8")
    return tmp_path


def test_by_hand(directory):
    models = load_perplexity_models(directory)
    assert set(models) == {"id", "th"}
    # two lines: a b </s>, c </s>
    expected = 10 ** ((0.2 + 0.7 + 0.5 + 1.0 + 0.5) / 5)
    assert models["id"]("a b\n\nc") == pytest.approx(expected, rel=1e-5)
    assert models["th"]("ab\nc") == pytest.approx(expected, rel=1e-5)
    assert models["id"]("") == 1.0


def test_filter(directory):
    limit = {"id": {"maximum_perplexity": 3.0, "minimum_units": 1, "minimum_word_length": 0}}
    limit["id"] |= {"maximum_top_ngram_share": 1, "maximum_duplicate_ngram_share": 1, "function_word_units": 1e9}
    filters = TextFilter(FilterConfig(perplexity_models=str(directory), thresholds=limit))
    assert filters.reason("a a a a a", "id") is None
    assert filters.reason("c c c c c", "id") == "high perplexity"


def test_errors(directory, monkeypatch):
    (directory / "km.arpa").write_text("nothing", encoding="utf-8")
    with pytest.raises(SeallmError, match="km.arpa is no KenLM model"):
        load_perplexity_models(directory)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(SeallmError, match="pip install 'seallm_jax\\[kenlm\\]'"):
        load_perplexity_models(directory)
    with pytest.raises(SeallmError, match="has no KenLM model"):
        load_perplexity_models(directory / "none")
