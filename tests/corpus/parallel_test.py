"""Aligned sentences from text files and JSON lines."""

import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.parallel import read_parallel


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


def test_errors(tmp_path):
    (tmp_path / "en.txt").write_text("a\nb\n")
    (tmp_path / "id.txt").write_text("a\n")
    with pytest.raises(SeallmError, match="same number of lines.*'en': 2, 'id': 1"):
        read_parallel(tmp_path)
    (tmp_path / "y.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(SeallmError, match="no aligned sentences"):
        read_parallel(tmp_path / "y.jsonl")
