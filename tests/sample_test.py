"""The embedded sample keeps what its README promises."""

import itertools
import unicodedata

import pytest

from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path

LANGUAGES = ("en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv")


@pytest.mark.parametrize("code", LANGUAGES)
def test_running_text(code):
    records = list(read_jsonl(sample_path("corpus") / f"{code}.jsonl"))
    texts = [record["text"] for record in records]
    assert all(record["lang"] == code for record in records)
    assert sum(len(text.encode()) for text in texts) >= 12_000
    assert all(unicodedata.is_normalized("NFC", text) for text in texts)
    paragraphs = list(itertools.chain.from_iterable(text.split("\n") for text in texts))
    assert len(set(paragraphs)) == len(paragraphs), "no templates, no repeats"


@pytest.mark.parametrize("code", LANGUAGES)
def test_tasks(code):
    conversations = list(read_jsonl(sample_path("instructions") / f"{code}.jsonl"))
    assert len(conversations) >= 12
    for conversation in conversations:
        roles = [message["role"] for message in conversation["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
    pairs = list(read_jsonl(sample_path("preferences") / f"{code}.jsonl"))
    assert len(pairs) >= 8 and all(pair["chosen"] != pair["rejected"] for pair in pairs)
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs)
    assert longer > 0, "length alone must not decide"
    items = list(read_jsonl(sample_path("choices") / f"{code}.jsonl"))
    assert len(items) >= 8 and all(0 <= item["answer"] < len(item["choices"]) for item in items)
    assert len({item["answer"] for item in items}) > 2
