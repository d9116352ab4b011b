"""Pairs of repaired sentences."""

import collections

import pytest

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.corpus.document import Rejected
from seallm_jax.corpus.parallel import AlignedRecord
from seallm_jax.corpus.parallel_pairs import SentencePair, file_language, repaired_pairs

RECORD = AlignedRecord(
    {
        "en": "The market was full of people this morning,\nbecause of the holiday.",
        "th": "ตลาดเช้าวันนี้คนเยอะมากเพราะเป็นวันหยุด",
        "vi": "",
    },
    "a.jsonl:3",
)


def test_pairs_and_rejections_in_order():
    identified: collections.Counter = collections.Counter()

    def identify(text):
        identified[text] += 1
        return ""

    found = list(repaired_pairs([RECORD], ParallelConfig(check_language=True), identify, lambda text, code: text + " "))
    english = "The market was full of people this morning, because of the holiday."
    thai = RECORD.sentences["th"]
    assert found == [
        SentencePair(("en", "th"), (english, thai), "a.jsonl:3#en-th"),
        Rejected("a.jsonl:3#en-vi", "empty side", "vi", len(english), f"{english} | "),
    ]
    wanted = ParallelConfig(pairs=("th-vi", "en-th"))
    again = list(repaired_pairs([RECORD] * 2, wanted, identify, lambda text, code: text))
    assert [pair.source for pair in again] == ["a.jsonl:3#en-th", "a.jsonl:3#th-vi"] * 2
    # once in each call, however often a sentence comes
    assert identified[english] == 2


@pytest.mark.parametrize(
    ("languages", "code"), [(("en", "km"), "km"), (("km", "en"), "km"), (("km", "th"), "th"), (("th", "km"), "km")]
)
def test_the_language_that_names_the_file(languages, code):
    assert file_language(languages) == code
