import numpy as np

from seallm_jax.data import text
from seallm_jax.data.text import text_ids


def test_documents_are_bos_text_eos_in_order(tokenizer, sample_texts, monkeypatch):
    monkeypatch.setattr(text, "TEXTS_AT_ONCE", 7)
    texts = [*sample_texts["km"][:10], "", *sample_texts["en"][:10]]
    found = list(text_ids(tokenizer, iter(texts), threads=2))
    assert len(found) == 21 and all(ids.dtype == np.int32 for ids in found)
    for ids, document in zip(found, texts, strict=True):
        assert ids.tolist() == tokenizer.encode(document, bos=True, eos=True)
        assert tokenizer.decode(ids[1:-1]) == document


def test_dropout_changes_the_pieces_and_not_the_text(tokenizer, sample_texts):
    texts = sample_texts["km"][:10]
    plain, dropped, again, other = (
        [ids.tolist() for ids in text_ids(tokenizer, texts, dropout=dropout, seed=seed)]
        for dropout, seed in ((0.0, 1), (0.2, 1), (0.2, 1), (0.2, 2))
    )
    assert dropped == again and dropped != other and dropped != plain
    assert sum(map(len, dropped)) > 1.05 * sum(map(len, plain))
    assert [tokenizer.decode(ids[1:-1]) for ids in dropped] == texts


def test_without_bos_a_document_stands_between_two_ends_of_documents(byte_level, sample_texts):
    """So the first token of a document is learned, as it was behind another document in pretraining."""
    texts = sample_texts["km"][:3]
    end = byte_level.id_of("<|endoftext|>")
    assert byte_level.bos_id is None and byte_level.eos_id != end
    for ids, document in zip(text_ids(byte_level, texts), texts, strict=True):
        assert ids.tolist() == [end, *byte_level.encode(document), end]
