"""Learning a tokenizer."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.learn import learn_tokenizer


def test_learns_the_size_asked_for(base, sample_texts):
    assert base.size == len(base) == 1024
    text = " ".join(sample_texts["en"][:5])
    assert len(base.encode(text)) < 0.6 * len(text)
    assert not base.adds_prefix


def test_is_a_function_of_the_text(base, sample_texts):
    again = learn_tokenizer(iter(sample_texts["en"]), 1024, seed=0)
    assert again.digest == base.digest


def test_pieces_cross_neither_spaces_nor_digits(base):
    for piece in base.mergeable_pieces:
        assert "\u2581" not in piece[1:]
        assert len(piece) <= 16
        assert len(piece) == 1 or not any(character.isdigit() for character in piece)


def test_takes_what_there_is_and_says_how_many(capsys):
    tokenizer = learn_tokenizer(["hello hello"], 1000, progress=Progress())
    assert 262 < tokenizer.size < 300
    assert f"the text supports {tokenizer.size} tokens, not 1000" in capsys.readouterr().err


def test_a_space_survives_even_if_no_text_had_one():
    tokenizer = learn_tokenizer(["ภาษาไทยไม่มีช่องว่าง"], 400)
    assert tokenizer.decode(tokenizer.encode(" ก  ข ")) == " ก  ข "


def test_newlines_tabs_and_nul_do_not_disturb():
    tokenizer = learn_tokenizer(["a\tb\n\n\0c d", "e f"], 400)
    assert tokenizer.decode(tokenizer.encode("a\tb\n\n\0c")) == "a\tb\n\n\0c"


@pytest.mark.parametrize("texts", [[], [""], ["\n\n"]])
def test_no_text_is_an_error(texts):
    with pytest.raises(SeallmError, match="there is no text"):
        learn_tokenizer(texts, 1000)


def test_a_size_below_the_alphabet_is_an_error(sample_texts):
    with pytest.raises(SeallmError, match="a tokenizer of 270 ids is too small.*need 3"):
        learn_tokenizer(sample_texts["en"], 270)


def test_a_surrogate_is_an_error():
    with pytest.raises(SeallmError, match="document 1 has a lone surrogate"):
        learn_tokenizer(["a", "\ud800"], 1000)
