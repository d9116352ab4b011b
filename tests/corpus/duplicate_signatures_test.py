"""Signature files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.document import Document
from seallm_jax.corpus.duplicate_signatures import DuplicateSignatures, fold, read_signatures
from seallm_jax.corpus.minhash import MinHash

CONFIG = DuplicatesConfig()


def sign(path, texts, config=CONFIG, urls=None):
    urls = urls or [""] * len(texts)
    with DuplicateSignatures(path, config) as signatures:
        for number, (text, url) in enumerate(zip(texts, urls, strict=True)):
            signatures.add(Document(text, "id", f"a:{number}", url))
    return read_signatures(path, config)


def test_a_record_a_document_in_order(tmp_path):
    texts = [f"Dokumen nomor {n} tentang pasar pagi. " * (n % 40 + 1) for n in range(700)]  # several batches
    records = sign(tmp_path / "x", texts)
    folded = [fold(text) for text in texts]
    assert np.array_equal(records["signature"], MinHash(num_hashes=128, ngram=5).signatures(folded))
    assert records["num_bytes"].tolist() == [len(text.encode()) for text in folded]
    assert len({digest.tobytes() for digest in records["digest"]}) == len(set(folded))
    assert not records["url"].any()


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from([" ", "\n", "\t \u2003"]))
def test_case_and_space_are_folded(text, space):
    assert fold(f" {text.upper()}{space}") == fold(text.upper())
    assert fold(fold(text)) == fold(text)


def test_same_page_same_number(tmp_path):
    urls = ["https://www.a.id/b/?utm_source=x", "http://a.id/b", "http://a.id/c", ""]
    found = sign(tmp_path / "x", ["teks"] * 4, urls=urls)["url"]
    assert found[0] == found[1] != 0 and found[2] not in (0, found[0]) and found[3] == 0


def test_surrogates_and_empty_text(tmp_path):
    assert len(sign(tmp_path / "x", ["a\ud800b", "", "\0"])) == 3
    assert len(sign(tmp_path / "y", [])) == 0


def test_bad_files_are_one_line(tmp_path):
    sign(tmp_path / "x", ["satu", "dua"])
    with pytest.raises(SeallmError, match="x is damaged or was written under other settings"):
        read_signatures(tmp_path / "x", dataclasses.replace(CONFIG, ngram=4))
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(SeallmError, match="x is damaged"):
        read_signatures(tmp_path / "x", CONFIG)
    with pytest.raises(SeallmError, match="cannot read .*none"):
        read_signatures(tmp_path / "none", CONFIG)


def test_a_failure_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), DuplicateSignatures(tmp_path / "x", CONFIG) as signatures:
        signatures.add(Document("teks", "id", "a:1"))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
