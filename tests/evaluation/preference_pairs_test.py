"""Preference files to scored replies."""

import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.data.chat import ChatRenderer
from seallm_jax.evaluation.preference_pairs import read_preference_pairs
from seallm_jax.tokenization.learn import learn_tokenizer

RECORDS = [
    {"prompt": "Apa kabar?", "chosen": "Baik, terima kasih.", "rejected": "Tidak tahu.", "lang": "id"},
    {"prompt": "no second reply", "chosen": "a", "lang": "id"},
    {"prompt": "สบายดีไหม", "chosen": "สบายดี", "rejected": "ไม่", "lang": "th"},
    {"prompt": "What?", "chosen": "This.", "rejected": "That."},
]


@pytest.fixture(scope="module")
def bytes_only():
    """A tokenizer with little more than bytes."""
    return learn_tokenizer(["Apa kabar? Baik, terima kasih."] * 5, 290)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS), encoding="utf-8")
    return path


def test_the_reply_and_its_end_token_are_scored(file, bytes_only):
    pairs = read_preference_pairs(file, ChatRenderer(bytes_only))
    assert [pair.language for pair in pairs] == ["id", "th"]
    pair = pairs[0]
    assert bytes_only.decode(pair.chosen.ids[pair.chosen.start :], special=True) == "Baik, terima kasih.<|im_end|>"
    assert bytes_only.decode(pair.rejected.ids[pair.rejected.start :], special=True) == "Tidak tahu.<|im_end|>"
    prompt = bytes_only.decode(pair.chosen.ids[: pair.chosen.start], special=True)
    assert prompt == "<s><|im_start|>user\nApa kabar?<|im_end|>\n<|im_start|>assistant\n"
    assert (pair.chosen_bytes, pair.rejected_bytes) == (19, 11)
    assert pairs[1].chosen_bytes == len("สบายดี".encode())


def test_languages_are_chosen_or_identified(file, bytes_only):
    renderer = ChatRenderer(bytes_only)
    assert len(read_preference_pairs(file, renderer, languages=["th"])) == 1
    found = read_preference_pairs(file, renderer, identify=lambda text: "en")
    assert [pair.language for pair in found] == ["id", "th", "en"]
    with pytest.raises(SeallmError, match="no preference pairs in a language that is evaluated"):
        read_preference_pairs(file, renderer, languages=["km"])


def test_pairs_are_kept_by_what_they_are(file, bytes_only):
    found = read_preference_pairs(file, ChatRenderer(bytes_only), keep=lambda pair: pair.chosen.content == "สบายดี")
    assert [pair.language for pair in found] == ["th"]
    assert read_preference_pairs(file, ChatRenderer(bytes_only), keep=lambda pair: False) == []


def test_a_file_without_pairs_is_refused(tmp_path, bytes_only):
    (tmp_path / "none.jsonl").write_text(json.dumps(RECORDS[1]))
    with pytest.raises(SeallmError, match="none.jsonl holds no preference pairs"):
        read_preference_pairs(tmp_path / "none.jsonl", ChatRenderer(bytes_only))


def test_the_sample_can_be_read(bytes_only):
    pairs = read_preference_pairs(sample_path("preferences"), ChatRenderer(bytes_only))
    assert {"id", "th", "vi"} <= {pair.language for pair in pairs}
