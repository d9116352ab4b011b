"""Properties of an extended vocabulary."""

import unicodedata

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.fertility import identity_rate, measure
from tests.tokenization.conftest import EXTENSION_SIZE


def test_old_ids_do_not_move(base, prefixed_base, extension, prefixed_extension):
    for old, found in ((base, extension), (prefixed_base, prefixed_extension)):
        assert found.base_size == old.size and found.base_digest == old.digest
        assert found.tokenizer.size == old.size + EXTENSION_SIZE
        assert [found.tokenizer.piece(index) for index in range(old.size)] == [
            old.piece(index) for index in range(old.size)
        ]
        assert found.new_pieces == tuple(
            found.tokenizer.piece(index) for index in range(old.size, found.tokenizer.size)
        )


def test_no_new_piece_is_unreachable(extension, prefixed_extension):
    for found in (extension, prefixed_extension):
        for index, piece in enumerate(found.new_pieces, start=found.base_size):
            special = index in found.tokenizer.special_tokens.values()
            assert found.tokenizer.encode_fragment(piece.replace("\u2581", " ")) == [index] or special
        used = sum(frequency > 0 for frequency in found.frequencies)
        assert used > 0.98 * len(found.new_pieces)


def test_new_pieces_stay_within_words_and_scripts(extension):
    for piece in extension.new_pieces:
        assert "\u2581" not in piece[1:]
        assert len(piece) <= 16
        body = piece.removeprefix("\u2581")
        if len(body) > 1:
            kinds = {unicodedata.category(character)[0] for character in body if character not in "\u200c\u200d"}
            assert kinds <= {"L", "M"} or kinds <= {"P", "S"}
            scripts = {unicodedata.name(c).split()[0] for c in body if unicodedata.category(c)[0] == "L"}
            assert len(scripts - {"MODIFIER"}) <= 1


def test_every_character_and_merge_is_frequent_enough(base, new_texts):
    found = extend_tokenizer(base, new_texts, 5000, minimum_frequency=20)
    text = "\n".join(document for documents in new_texts.values() for document in documents)
    for piece in found.new_pieces:
        assert (" " + text).count(piece.replace("\u2581", " ")) >= 20


def test_every_language_gets_shorter(base, extension, new_texts):
    for texts in new_texts.values():
        assert measure(extension.tokenizer, texts).tokens < 0.9 * measure(base, texts).tokens


def test_held_out_text_gets_shorter(base, sample_texts):
    train = {language: texts[2:] for language, texts in sample_texts.items() if language != "en"}
    found = extend_tokenizer(base, train, EXTENSION_SIZE)
    for language in ("th", "km", "lo", "my"):
        held_out = sample_texts[language][:2]
        assert measure(found.tokenizer, held_out).tokens < 0.5 * measure(base, held_out).tokens


def test_english_keeps_its_ids_unless_the_scripts_meet(base, extension, sample_texts, new_texts):
    other_scripts = extend_tokenizer(base, {code: new_texts[code] for code in ("th", "km", "lo", "my")}, 400)
    assert identity_rate(base, other_scripts.tokenizer, sample_texts["en"]) > 0.99
    protected = extend_tokenizer(base, new_texts, EXTENSION_SIZE, protected_texts=sample_texts["en"])
    free = identity_rate(base, extension.tokenizer, sample_texts["en"])
    kept = identity_rate(base, protected.tokenizer, sample_texts["en"])
    assert kept > 0.9 and kept > free
    ratio = measure(protected.tokenizer, sample_texts["en"]).tokens / measure(base, sample_texts["en"]).tokens
    assert 0.99 < ratio <= 1.0


def test_protecting_everything_leaves_it_as_it_is(base, sample_texts):
    found = extend_tokenizer(
        base, {"id": sample_texts["id"]}, 100, protected_texts=sample_texts["id"], protected_ratio=0
    )
    assert found.new_pieces == ()


def test_alpha_moves_places_to_the_smaller_language(base, sample_texts):
    texts = {"th": sample_texts["th"], "lo": sample_texts["lo"][:3]}

    def lao(alpha):
        found = extend_tokenizer(base, texts, 200, alpha=alpha)
        return sum("\u0e80" <= piece[-1] <= "\u0eff" for piece in found.new_pieces)

    assert lao(0.0) > lao(0.5) > lao(1.0)


def test_chat_tokens_come_first_where_the_base_lacks_them(extension, prefixed_extension):
    assert prefixed_extension.new_pieces[:3] == ("<|im_start|>", "<|im_end|>", "<pad>")
    assert prefixed_extension.frequencies[:3] == (0, 0, 0)
    tokenizer = prefixed_extension.tokenizer
    assert tokenizer.stop_ids == (2, prefixed_extension.base_size + 1)
    assert tokenizer.pad_id == prefixed_extension.base_size + 2
    assert "<|im_end|>" in tokenizer.chat_template
    assert not set(extension.new_pieces) & {"<|im_start|>", "<|im_end|>", "<pad>"}


def test_a_base_keeps_its_own_template(prefixed_base, new_texts):
    own = type(prefixed_base)(prefixed_base.model, chat_template="[INST]{{ messages }}")
    assert extend_tokenizer(own, new_texts, 10).tokenizer.chat_template == "[INST]{{ messages }}"


def test_source_ids_spell_the_piece_with_the_base(base, prefixed_base, extension, prefixed_extension):
    for old, found in ((base, extension), (prefixed_base, prefixed_extension)):
        assert len(found.source_ids) == len(found.new_pieces)
        for piece, ids in zip(found.new_pieces, found.source_ids, strict=True):
            assert ids and max(ids) < found.base_size
            text = piece.replace("\u2581", " ")
            assert old.decode([*old.encode_fragment("."), *ids]) == "." + text


def test_it_is_deterministic(base, extension, new_texts):
    again = extend_tokenizer(base, {code: iter(texts) for code, texts in new_texts.items()}, EXTENSION_SIZE, threads=1)
    assert again.tokenizer.digest == extension.tokenizer.digest
    assert again.frequencies == extension.frequencies


def test_extending_twice_goes_on_where_the_first_stopped(base, new_texts):
    first = extend_tokenizer(base, {"th": new_texts["th"]}, 100)
    second = extend_tokenizer(first.tokenizer, {"lo": new_texts["lo"]}, 100)
    assert second.base_size == first.tokenizer.size
    assert not set(first.new_pieces) & set(second.new_pieces)
    thai = new_texts["th"][0]
    assert second.tokenizer.encode(thai) == first.tokenizer.encode(thai)


def test_more_than_the_text_supports(base, capsys):
    found = extend_tokenizer(base, {"th": ["กขคง กขคง กขคง"]}, 1000, progress=Progress())
    assert 0 < len(found.new_pieces) < 20
    assert f"the text supports {len(found.new_pieces)} new tokens with frequency 3, not 1000" in capsys.readouterr().err


def test_size_zero_is_the_base(base, new_texts):
    found = extend_tokenizer(base, new_texts, 0)
    assert found.tokenizer is base and found.new_pieces == ()


def test_wrong_use(base, prefixed_base, new_texts):
    with pytest.raises(SeallmError, match="vocabulary size -1"):
        extend_tokenizer(base, new_texts, -1)
    with pytest.raises(SeallmError, match="there is no text"):
        extend_tokenizer(base, {"th": []}, 10)
    with pytest.raises(SeallmError, match="there is no text"):
        extend_tokenizer(base, {}, 10)
    with pytest.raises(SeallmError, match="no room for the chat tokens"):
        extend_tokenizer(prefixed_base, new_texts, 2)


def test_mistral_can_be_extended(mistral, sample_texts, new_texts):
    found = extend_tokenizer(mistral, new_texts, 500, protected_texts=sample_texts["en"])
    assert found.tokenizer.size == 32500
    assert identity_rate(mistral, found.tokenizer, sample_texts["en"]) > 0.98
    for language in ("lo", "my", "km"):
        texts = sample_texts[language]
        assert measure(found.tokenizer, texts).tokens < 0.7 * measure(mistral, texts).tokens
        assert all(found.tokenizer.decode(found.tokenizer.encode(text)) == text for text in texts)
