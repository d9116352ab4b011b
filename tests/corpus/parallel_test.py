"""Aligned sentences from text files and JSON lines."""

import gzip
import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.parallel import AlignedRecord, language_pairs, read_aligned, read_parallel


def test_sample_is_aligned_in_ten_languages():
    sentences = read_parallel(sample_path("parallel"))
    assert sorted(sentences) == ["en", "id", "jv", "km", "lo", "ms", "my", "th", "tl", "vi"]
    assert {len(lines) for lines in sentences.values()} == {40}
    assert all(line for lines in sentences.values() for line in lines)


def test_json_lines(tmp_path):
    rows = [{"document": "d", "en": f"One {i}", "id": f"Satu {i}"} for i in range(3)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_parallel(tmp_path / "x.jsonl") == {
        "en": ["One 0", "One 1", "One 2"],
        "id": ["Satu 0", "Satu 1", "Satu 2"],
    }


def test_records_of_all_formats(tmp_path):
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"translation": {"en": "Two", "km": "ពីរ"}, "score": 0.75, "doc_id": 7}) + "\n\n")
        file.write(json.dumps({"text": "no pair"}) + "\n")
        file.write(json.dumps({"en": "Three", "th": "สาม", "similarity": 1, "document": "d"}) + "\n")
    (tmp_path / "lo.txt").write_text("ໜຶ່ງ\nສອງ\n")
    (tmp_path / "en.txt").write_text("One\nTwo\n")
    (tmp_path / "OpenSubtitles.en-vi.en").write_text("Hello\n")
    (tmp_path / "OpenSubtitles.en-vi.vi").write_text("Xin chào\n")
    (tmp_path / "OpenSubtitles.en-vi.scores").write_text("1\n")
    assert list(read_aligned(tmp_path)) == [
        AlignedRecord({"en": "Hello", "vi": "Xin chào"}, "OpenSubtitles.en-vi.en:1"),
        AlignedRecord({"en": "One", "lo": "ໜຶ່ງ"}, "en.txt:1"),
        AlignedRecord({"en": "Two", "lo": "ສອງ"}, "en.txt:2"),
        AlignedRecord({"en": "Two", "km": "ពីរ"}, "b.jsonl.gz:1", 0.75, "7"),
        AlignedRecord({"en": "Three", "th": "สาม"}, "b.jsonl.gz:4", 1.0, "d"),
    ]


def test_pairs():
    assert language_pairs(["th", "en", "km"]) == [("en", "km"), ("en", "th")]
    assert language_pairs(["vi", "lo", "km"]) == [("km", "lo"), ("km", "vi"), ("lo", "vi")]
    assert language_pairs(["th", "en", "km"], ["th-km", "en-th", "en-my"]) == [("en", "th"), ("km", "th")]


def test_errors(tmp_path):
    (tmp_path / "en.txt").write_text("a\nb\n")
    (tmp_path / "id.txt").write_text("a\n")
    with pytest.raises(SeallmError, match="same number of lines.*'en': 2, 'id': 1"):
        read_parallel(tmp_path)
    (tmp_path / "id.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(SeallmError, match=r"id\.txt is not UTF-8"):
        read_parallel(tmp_path)
    (tmp_path / "y.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(SeallmError, match="no aligned sentences"):
        read_parallel(tmp_path / "y.jsonl")
    (tmp_path / "y.jsonl").write_text('{"en": "x", "id": "y"}\n{"en"\n')
    with pytest.raises(SeallmError, match=r"y\.jsonl:2: not a valid"):
        read_parallel(tmp_path / "y.jsonl")
    (tmp_path / "y.jsonl").write_text('{"en": "x", "id": "y"}\n{"en": "x", "km": "y"}\n')
    with pytest.raises(SeallmError, match="no two languages in all"):
        read_parallel(tmp_path / "y.jsonl")
    with pytest.raises(SeallmError, match="does not exist"):
        read_parallel(tmp_path / "none")
