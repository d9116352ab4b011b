"""Code-switched documents: nothing lost, nothing repeated, the same every time."""

import collections
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import CodeSwitchingConfig, ParallelConfig
from seallm_jax.corpus.code_switching import code_switch, code_switched_sentences
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.language import identify_language

TEXTS = st.lists(st.text("abcกข", min_size=1, max_size=30), max_size=15)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["en", "id", "th", "km"]), TEXTS), st.floats(0, 1), st.integers(1, 120))
def test_every_document_comes_out_once(texts, fraction, maximum):
    config = CodeSwitchingConfig(fraction=fraction, maximum_characters=maximum)
    streams = {
        code: [Document(f"{code}{n} {text}", code, f"{code}:{n}") for n, text in enumerate(group)]
        for code, group in texts.items()
    }
    found = list(code_switch(streams, config))
    assert found == list(code_switch(streams, config))
    everything = [document for group in streams.values() for document in group]
    parts = [part for document, _ in found for part in document.text.split("\n\n")]
    assert collections.Counter(parts) == collections.Counter(document.text for document in everything)
    for document, switched in found:
        languages = [part[:2] for part in document.text.split("\n\n")]
        if switched:
            assert len(set(languages)) > 1 and all(a != b for a, b in zip(languages, languages[1:], strict=False))
            assert len(document.text) <= maximum
            numbers = [part.split(" ")[0] for part in document.text.split("\n\n")]
            assert document.source == " ".join(f"{number[:2]}:{number[2:]}" for number in numbers)
            lengths = collections.Counter()
            for part in document.text.split("\n\n"):
                lengths[part[:2]] += len(part) * (part[:2] != "en")
            assert document.language in languages and lengths[document.language] == max(lengths.values())
        else:
            assert document in everything
    if fraction == 0:
        assert not any(switched for _, switched in found)


def test_most_documents_of_equal_languages_are_switched():
    streams = {c: [Document(f"{c} {n} " * 20, c, f"{c}:{n}") for n in range(100)] for c in ("en", "th", "km")}
    found = list(code_switch(streams, CodeSwitchingConfig(fraction=1.0, maximum_characters=1000)))
    assert sum(len(document.text.split("\n\n")) for document, switched in found if switched) >= 299
    half = list(code_switch(streams, CodeSwitchingConfig(fraction=0.5, maximum_characters=1000)))
    alone = sum(not switched for _, switched in half)
    assert 100 < alone < 200


def write(path, count):
    with open(path, "w") as file:
        for n in range(count):
            row = {
                "en": f"House number {n} stands at the river.",
                "km": f"ផ្ទះលេខ {n} ស្ថិតនៅមាត់ទន្លេ។",
                "th": f"บ้านเลขที่ {n} อยู่ริมแม่น้ำ" if n % 7 else "one",
                "document": f"d{n // 20}",
            }
            file.write(json.dumps(row) + "\n")
    return [path]


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_every_sentence_once_a_pair_in_one_language(tmp_path, probability):
    paths = write(tmp_path / "p.jsonl", 100)
    config = CodeSwitchingConfig(maximum_characters=300, switch_probability=probability)
    records = list(code_switched_sentences(paths, config, ParallelConfig(), identify_language))
    assert records == list(code_switched_sentences(paths, config, ParallelConfig(), identify_language))
    rejected = [record for record in records if isinstance(record, Rejected)]
    assert [record.source for record in rejected] == [f"p.jsonl:{n + 1}#en-th" for n in range(0, 100, 7)]
    for code in ("km", "th"):
        documents = [r for r in records if isinstance(r, Document) and r.language == code]
        lines = [line for document in documents for line in document.text.split("\n")]
        numbers = [int("".join(filter(str.isdigit, line))) for line in lines]
        assert numbers == [n for n in range(100) if code == "km" or n % 7]
        switches = staying = 0
        for document in documents:
            own = document.text.split("\n")
            assert len(document.text) <= 300
            number = [int("".join(filter(str.isdigit, line))) for line in own]
            assert len({n // 20 for n in number}) == 1
            english = [line.startswith("House") for line in own]
            switches += sum(a != b for a, b in zip(english, english[1:], strict=False))
            staying += sum(a == b for a, b in zip(english, english[1:], strict=False))
        assert switches == 0 if probability == 0 else staying == 0 if probability == 1 else 0 < switches < len(lines)
