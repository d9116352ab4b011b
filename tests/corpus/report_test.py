"""Counts that add up in any order, and the tables made of them."""

import json

from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.document import Rejected
from seallm_jax.corpus.report import CorpusReport

RECORDS = st.lists(
    st.builds(
        Rejected,
        source=st.from_regex(r"[a-c]\.jsonl:[1-9][0-9]?", fullmatch=True),
        reason=st.sampled_from(["too short", "near duplicate"]),
        language=st.sampled_from(["", "km", "id"]),
        num_bytes=st.integers(0, 5000),
        excerpt=st.text(max_size=5),
    ),
    max_size=30,
    unique_by=lambda record: record.source,
)


def report_of(records) -> CorpusReport:
    report = CorpusReport()
    for record in records:
        counts = report.of(record.language)
        counts.documents_read += 2
        counts.bytes_read += 2 * record.num_bytes
        counts.keep("train", record.num_bytes)
        counts.identified["jv"] += 1
        report.drop(record)
    return report


@given(RECORDS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_any_division_gives_the_same_report(records, cut, generator):
    whole = report_of(records).to_json()
    mixed = list(records)
    generator.shuffle(mixed)
    parts = CorpusReport()
    for part in (mixed[:cut], mixed[cut:]):
        parts.add(CorpusReport.from_json(json.loads(json.dumps(report_of(part).to_json()))))
    assert json.dumps(parts.to_json(), sort_keys=True) == json.dumps(whole, sort_keys=True)


@given(RECORDS)
def test_tables_show_every_document_once(records):
    report = report_of(records)
    assert sum(row["documents read"] for row in report.table()) == 2 * len(records)
    assert sum(row["dropped"] for row in report.table()) == len(records)
    assert sum(row["documents"] for row in report.dropped_table()) == len(records)
    assert sum(row["documents"] for row in report.confusion_table()) == len(records)
    assert {row["for example"] for row in report.dropped_table()} <= {record.source for record in records}
    assert report.languages == tuple(sorted({record.language or "?" for record in records}))


def test_agreement_and_columns_that_nobody_asked_for():
    report = CorpusReport()
    report.of("min").identified.update({"id": 3, "min": 1})
    report.of("th").identified["th"] = 2
    assert report.confusion_table() == [{"label": "min", "documents": 4, "agree": "25.0%", "taken for": "id 3"}]
    assert not {"parallel", "code-switched", "masked"} & set(report.table()[0])
    report.of("th").masked["email"] += 2
    assert [row["masked"] for row in report.table()] == ["", "2 email"]
