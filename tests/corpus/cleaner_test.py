"""What is done to one document."""

import json

import pytest

from seallm_jax.core.corpus_config import CorpusConfig, FilterConfig, QualityConfig
from seallm_jax.corpus.cleaner import DocumentCleaner
from seallm_jax.corpus.document import Document, Rejected

TEXT = "Ibu pergi ke pasar pagi ini untuk membeli sayur dan ikan segar, lalu pulang dengan sepeda."


def clean(text: str, language: str = "id", cleaner: DocumentCleaner | None = None, **options) -> Document | Rejected:
    cleaner = cleaner or DocumentCleaner(CorpusConfig(**options))
    (record,) = cleaner.clean([Document(text, language, "a.jsonl:1", "https://a.id")])
    return record


def test_a_good_document_keeps_everything():
    assert clean(f"\ufeff{TEXT}\r\n", "ind") == Document(TEXT, "id", "a.jsonl:1", "https://a.id")
    assert clean(TEXT, "") == Document(TEXT, "id", "a.jsonl:1", "https://a.id")


@pytest.mark.parametrize(
    ("text", "language", "options", "reason"),
    [
        ("short", "id", {}, "too short"),
        (TEXT, "km", {}, "wrong script"),
        (TEXT, "id", {"languages": ("km",)}, "language not wanted"),
        ("1234567890 " * 9, "", {}, "unknown language"),
        (TEXT, "id", {"filters": FilterConfig(thresholds={"id": {"minimum_units": 500}})}, "too few words"),
    ],
)
def test_reasons(text, language, options, reason):
    record = clean(text, language, **options)
    assert isinstance(record, Rejected) and record.source == "a.jsonl:1" and record.excerpt == text[:200].strip()
    assert record.num_bytes == len(text.encode()) and record.reason == reason


def test_personal_data_is_masked_and_counted():
    cleaner = DocumentCleaner(CorpusConfig())
    record = clean(f"{TEXT} Kirim surat ke siti.aminah@contoh.co.id sekarang juga.", cleaner=cleaner)
    assert isinstance(record, Document) and "siti" not in record.text
    assert cleaner.report.of("id").masked == {"email": 1}
    plain = clean(f"{TEXT} siti@contoh.co.id", filters=FilterConfig(mask_personal_data=False))
    assert isinstance(plain, Document) and "siti@contoh.co.id" in plain.text


def test_evaluation_text_is_dropped(tmp_path):
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": TEXT, "choices": ["ya", "tidak"]}))
    cleaner = DocumentCleaner(CorpusConfig(), evaluation=[tmp_path])
    record = clean(f"Kata orang: {TEXT.upper()}", cleaner=cleaner)
    assert isinstance(record, Rejected) and record.reason == "contaminated"
    other = "Anak-anak bermain bola di lapangan desa sampai matahari terbenam."
    assert isinstance(clean(other, cleaner=cleaner), Document)


class Scores:
    """Stands in for a trained classifier."""

    def __init__(self, value: float):
        self.value = value

    def score(self, text: str) -> float:
        return self.value


@pytest.mark.parametrize(("score", "kept"), [(0.2, False), (0.8, True)])
def test_quality_is_kept_as_a_field_and_low_quality_dropped(score, kept):
    cleaner = DocumentCleaner(CorpusConfig(quality=QualityConfig(minimum=0.5)))
    cleaner._quality = Scores(score)
    record = clean(TEXT, cleaner=cleaner)
    assert record.quality == score if isinstance(record, Document) else record.reason == "low quality"
    assert isinstance(record, Document) is kept


def test_every_record_is_counted_once():
    cleaner = DocumentCleaner(CorpusConfig())
    records = [
        Document(TEXT, "id", "a:1"),
        Document("x", "id", "a:2"),
        Document("1234567890 " * 5, "", "a:3"),
        Rejected("a:4", "invalid JSON", num_bytes=7),
    ]
    assert [isinstance(record, Document) for record in cleaner.clean(records)] == [True, False, False, False]
    counts = cleaner.report.counts
    assert (counts["id"].documents_read, counts["?"].documents_read) == (2, 2)
    assert counts["?"].dropped == {"invalid JSON": 1, "unknown language": 1}
    assert counts["id"].bytes_read == len(TEXT.encode()) + 1 and counts["?"].bytes_read == 62
    assert counts["id"].identified == {"id": 1}
