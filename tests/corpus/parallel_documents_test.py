"""Pairs as plain text."""

import collections
import json

import pytest

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.core.languages import language_name
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.language import identify_language
from seallm_jax.corpus.parallel_documents import parallel_documents
from seallm_jax.corpus.parallel_templates import LETTERS, write_pair


def write(path, count):
    with open(path, "w") as file:
        for n in range(count):
            row = {
                "en": f"House number {n} stands at the river.",
                "id": f"Rumah nomor {n} berdiri di tepi sungai.",
                "km": f"ផ្ទះលេខ {n} ស្ថិតនៅមាត់ទន្លេ។",
                "similarity": n % 10 / 10,
            }
            file.write(json.dumps(row) + "\n")
    return [path]


def run(paths, **options):
    return list(parallel_documents(paths, ParallelConfig(**options), identify_language))


def test_every_pair_once_in_one_of_eleven_wordings_and_two_directions(tmp_path):
    paths = write(tmp_path / "p.jsonl", 600)
    documents = run(paths)
    assert len(documents) == 1200 and documents == run(paths)
    assert collections.Counter(document.language for document in documents) == {"id": 600, "km": 600}
    directions = collections.Counter(document.source.rpartition("#")[2] for document in documents)
    assert set(directions) == {"en-id", "id-en", "en-km", "km-en"} and min(directions.values()) > 240
    used: collections.Counter = collections.Counter()
    for document in documents:
        number = int(document.source.split(":")[1].split("#")[0]) - 1
        sides = {
            "en": f"House number {number} stands at the river.",
            "id": f"Rumah nomor {number} berdiri di tepi sungai.",
            "km": f"ផ្ទះលេខ {number} ស្ថិតនៅមាត់ទន្លេ។",
        }
        a, b = document.source.rpartition("#")[2].split("-")
        names = (language_name(a), language_name(b))
        used.update(letter for letter in LETTERS if write_pair(letter, sides[a], sides[b], names) == document.text)
    assert sum(used.values()) == 1200 and set(used) == set(LETTERS)
    # eleven equal shares: 109 each, standard deviation 10
    assert min(used.values()) > 60 and max(used.values()) < 160


def test_both_directions_and_chosen_templates_and_pairs(tmp_path):
    paths = write(tmp_path / "p.jsonl", 5)
    documents = run(paths, directions="both", templates="B", pairs=("km-id",))
    assert [(d.language, d.source.rpartition("#")[2]) for d in documents[:2]] in (
        [("km", "id-km"), ("id", "km-id")],
        [("id", "km-id"), ("km", "id-km")],
    )
    assert len(documents) == 10
    assert {d.text for d in documents} >= {
        "Khmer: ផ្ទះលេខ 0 ស្ថិតនៅមាត់ទន្លេ។\nIndonesian: Rumah nomor 0 berdiri di tepi sungai."
    }


def test_rejected_pairs_come_out_with_the_reason(tmp_path):
    records = run(write(tmp_path / "p.jsonl", 20), minimum_similarity=0.5)
    rejected = [record for record in records if isinstance(record, Rejected)]
    assert len(records) == 40 and len(rejected) == 20
    assert {record.reason for record in rejected} == {"low similarity"}
    assert rejected[1].source == "p.jsonl:1#en-km" and rejected[1].language == "km"
    assert rejected[1].excerpt == "House number 0 stands at the river. | ផ្ទះលេខ 0 ស្ថិតនៅមាត់ទន្លេ។"
    assert rejected[1].num_bytes == len(rejected[1].excerpt.replace(" | ", "").encode())


def test_sides_are_repaired(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"en": "A\u0000 line\nbroken ", "id": "Baris\r\nini patah"}))
    (document,) = run([tmp_path / "p.jsonl"], templates="B")
    assert sorted(document.text.split("\n")) == ["English: A line broken", "Indonesian: Baris ini patah"]
    assert isinstance(document, Document)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": "AZ"}, "templates is 'AZ'"),
        ({"pairs": ("en",)}, r"pairs is \('en',\)"),
        ({"maximum_length_ratio": 1.0}, "maximum_length_ratio is 1.0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        ParallelConfig(**options)
