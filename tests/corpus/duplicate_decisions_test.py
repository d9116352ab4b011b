"""Leaving out what was decided."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.duplicate_decisions import drop_duplicates

DOCUMENTS = [Document(f"teks {n}", "id", f"a.jsonl:{n}") for n in range(4)]


def test_each_document_comes_out_once(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 1, 2, 3]))
    kept, *dropped = drop_duplicates(DOCUMENTS, tmp_path / "x")
    assert kept is DOCUMENTS[0]
    reasons = ["exact duplicate", "same address", "near duplicate"]
    assert dropped == [Rejected(f"a.jsonl:{n}", reasons[n - 1], "id", 6, f"teks {n}") for n in (1, 2, 3)]


@pytest.mark.parametrize("count", [3, 5])
def test_a_changed_input_is_noticed(tmp_path, count):
    (tmp_path / "x").write_bytes(bytes(count))
    with pytest.raises(SeallmError, match=f"{count} decisions for 4 documents.*the input has changed"):
        list(drop_duplicates(DOCUMENTS, tmp_path / "x"))


def test_missing_decisions(tmp_path):
    with pytest.raises(SeallmError, match="cannot read .*none"):
        list(drop_duplicates(DOCUMENTS, tmp_path / "none"))
