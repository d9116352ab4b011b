"""Budgets, protected scripts and limits of continued BPE."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.continued_bpe import prune
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.fertility import identity_rate, measure
from seallm_jax.tokenization.merges import LearnedPiece
from seallm_jax.tokenization.scripts import script_of


def test_budgets_bound_their_languages_and_the_rest_is_shared(base, new_texts):
    texts = {code: new_texts[code] for code in ("th", "lo", "km")}
    found = extend_tokenizer(base, texts, 300, budgets={"th": 50, "lo": 0})
    assert found.tokens_by_language() == {"km": 250, "th": 50}


def test_budgets_alone_make_the_size(prefixed_base, new_texts):
    found = extend_tokenizer(prefixed_base, new_texts, None, budgets=dict.fromkeys(new_texts, 20))
    assert found.tokens_by_language() == dict.fromkeys(new_texts, 20)
    assert len(found.new_pieces) == 3 + 20 * len(new_texts)  # the chat tokens are nobody's


def test_a_budget_of_nothing_is_as_if_there_were_no_text(base, new_texts):
    """A language whose budget is nothing teaches nothing."""
    found = extend_tokenizer(base, {"id": new_texts["id"], "th": new_texts["th"][:1]}, 100, budgets={"th": 0})
    assert found.tokens_by_language() == {"id": 100}
    again = extend_tokenizer(base, {"id": new_texts["id"]}, 100)
    assert found.new_pieces == again.new_pieces


def test_protected_scripts_keep_ids(base, new_texts, sample_texts):
    english, vietnamese = sample_texts["en"], new_texts["vi"]
    latin = extend_tokenizer(base, new_texts, 400, protected_scripts=["Latin"])
    for piece in latin.new_pieces:
        assert {script_of(character) for character in piece} - {"", "LATIN"}
    assert identity_rate(base, latin.tokenizer, english) == 1.0
    ascii_only = extend_tokenizer(base, new_texts, 400, protected_scripts=["ASCII"])
    assert identity_rate(base, ascii_only.tokenizer, english) >= 0.998
    gains = [
        measure(found.tokenizer, vietnamese).tokens / measure(base, vietnamese).tokens for found in (latin, ascii_only)
    ]
    assert gains[1] < 0.8 < gains[0]


def test_the_vocabulary_is_a_multiple_when_asked(base, new_texts):
    found = extend_tokenizer(base, new_texts, 100, pad_to=128)
    assert found.tokenizer.size == 1152 and len(found.new_pieces) == 128
    little = extend_tokenizer(base, {"th": new_texts["th"][:12]}, 3000, pad_to=128)
    assert little.tokenizer.size % 128 == 0 and 0 < len(little.new_pieces) < 3000
    with pytest.raises(SeallmError, match="pad_to -1"):
        extend_tokenizer(base, new_texts, 100, pad_to=-1)


def test_strict_makes_a_shortage_an_error(base):
    with pytest.raises(SeallmError, match="the text supports .* new tokens with frequency 3, not 1000; give more text"):
        extend_tokenizer(base, {"th": ["กขคง กขคง กขคง"]}, 1000, strict=True)


def test_more_words_than_memory_holds(base, new_texts, capsys):
    """A sample of rare words finds nearly the pieces that all of them find."""
    texts = {"th": new_texts["th"]}
    whole = extend_tokenizer(base, texts, 200)
    sample = extend_tokenizer(base, texts, 200, maximum_symbols=4096, progress=Progress())
    assert "th has more different words than fit in" in capsys.readouterr().err
    assert measure(sample.tokenizer, texts["th"]).tokens < 1.1 * measure(whole.tokenizer, texts["th"]).tokens


def test_wrong_budgets(base, new_texts):
    with pytest.raises(SeallmError, match="a budget for xx, but the text is in"):
        extend_tokenizer(base, new_texts, 10, budgets={"xx": 5})
    with pytest.raises(SeallmError, match="budgets must not be negative"):
        extend_tokenizer(base, new_texts, 10, budgets={"th": -5})
    with pytest.raises(SeallmError, match="give a size, or a budget"):
        extend_tokenizer(base, new_texts, None)


def test_rare_leaves_are_pruned_and_give_their_occurrences_back():
    learned = [
        LearnedPiece("ab", ("a", "b"), 1),  # too rare by itself, but abc gives two back
        LearnedPiece("cd", ("c", "d"), 0),  # part of cde, which stays
        LearnedPiece("cde", ("cd", "e"), 3),
        LearnedPiece("abc", ("ab", "c"), 2),
    ]
    kept = prune(learned, 3)
    assert [(piece.text, piece.frequency) for piece in kept] == [("ab", 3), ("cd", 0), ("cde", 3)]
