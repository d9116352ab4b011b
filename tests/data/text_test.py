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
