"""The record of an extension."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.extension import Extension


def test_saving_and_loading(extension, tmp_path):
    extension.save(tmp_path / "tokenizer")
    loaded = Extension.load(tmp_path / "tokenizer")
    assert loaded.tokenizer.digest == extension.tokenizer.digest
    for field in ("base_size", "base_digest", "new_pieces", "source_ids", "frequencies", "languages", "method"):
        assert getattr(loaded, field) == getattr(extension, field)


def test_a_record_of_another_tokenizer_is_refused(base, extension, tmp_path):
    extension.save(tmp_path)
    base.save(tmp_path)
    with pytest.raises(SeallmError, match="belongs to another tokenizer"):
        Extension.load(tmp_path)


def test_a_tokenizer_without_a_record(base, tmp_path):
    base.save(tmp_path)
    with pytest.raises(SeallmError, match="has no extension.json"):
        Extension.load(tmp_path)


def test_the_record_of_what_was_put_behind_a_base(prefixed_base, prefixed_extension):
    extended, chat = prefixed_extension.tokenizer, ("<|im_start|>", "<|im_end|>", "<pad>")
    pieces = prefixed_extension.new_pieces[3:]
    rest = {name: getattr(prefixed_extension, name)[3:] for name in ("frequencies", "languages")}
    found = Extension.of(prefixed_base, extended, chat, pieces, **rest, method="continued_bpe")
    assert found == prefixed_extension
    written = [extended.piece(index) for index in range(prefixed_base.size, extended.size)]
    assert list(found.new_pieces) == written
    spelled = [b"".join(prefixed_base.piece_bytes(index) for index in ids) for ids in found.source_ids]
    assert spelled == [piece.replace("\u2581", " ").encode() for piece in written]


def test_tokens_by_language(extension, prefixed_extension):
    for found in (extension, prefixed_extension):
        numbers = found.tokens_by_language()
        chat = found.languages.count("")
        assert sum(numbers.values()) == len(found.new_pieces) - chat == len(found.languages) - chat
        assert list(numbers.values()) == sorted(numbers.values(), reverse=True)
        for piece, language in zip(found.new_pieces, found.languages, strict=True):
            if "\u0e00" <= piece[-1] <= "\u0e7f":
                assert language == "th"
