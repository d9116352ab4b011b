"""The whole report on a vocabulary."""

import json

from seallm_jax.tokenization.vocabulary_report import vocabulary_report


def test_report(base, extension, sample_texts):
    texts = {code: sample_texts[code][:2] for code in ("en", "lo")}
    report = vocabulary_report(base, extension.tokenizer, texts)
    assert report["base"]["size"] == base.size and report["extended"]["size"] == extension.tokenizer.size
    assert report["extended"]["unreachable"] == 0 == len(report["extended"]["unreachable_examples"])
    assert [row["language"] for row in report["fertility"]] == ["en", "lo"]
    assert 0 < report["english_unchanged"] <= 1
    lao = report["fertility"][1]
    assert lao["extended_byte_share"] < 0.1 < lao["base_byte_share"] <= 1
    assert lao["extended_renyi_efficiency"] > lao["base_renyi_efficiency"]
    assert json.loads(json.dumps(report)) == report


def test_without_english(base, sample_texts):
    report = vocabulary_report(base, base, {"lo": sample_texts["lo"][:1]})
    assert report["english_unchanged"] is None and report["base"] == report["extended"]
