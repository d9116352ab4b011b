"""Every format to documents, and every kind of damage to counted records."""

import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import CorpusConfig
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.reader import DAMAGED, UNREADABLE, find_files, read_documents

CONFIG = CorpusConfig()


def read(path, config: CorpusConfig = CONFIG) -> list[Document | Rejected]:
    return [record for file in find_files(path) for record in read_documents(file, config)]


def test_json_lines_carry_language_and_address(tmp_path):
    lines = [{"text": "one", "lang": "km", "url": "https://a.kh"}, {"text": "two"}, {"text": 3}, ["four"]]
    (tmp_path / "lo.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)))
    assert read(tmp_path) == [
        Document("one", "km", "lo.jsonl:1", "https://a.kh"),
        Document("two", "lo", "lo.jsonl:3"),
        Rejected("lo.jsonl:5", "no text in 'text'", excerpt="{'text': 3}"),
        Rejected("lo.jsonl:7", "no text in 'text'", excerpt="['four']"),
    ]


def test_blocks_of_a_text_file(tmp_path):
    (tmp_path / "th.txt").write_bytes("ก\nข\n\n  \nค\r\n".encode() + b"\n\xff\xfe\nd\n\nlast")
    records = read(tmp_path)
    assert [record.source for record in records] == ["th.txt:1", "th.txt:5", "th.txt:7", "th.txt:10"]
    assert [getattr(record, "text", None) for record in records] == ["ก\nข\n", "ค\r\n", None, "last"]
    assert all(record.language == "th" for record in records if isinstance(record, Document))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=40), st.integers(0, 400), st.data())
def test_no_record_is_lost_in_a_damaged_file(tmp_path_factory, texts, position, data):
    """Up to the damage every record is read; then one record says where reading stopped."""
    directory = tmp_path_factory.mktemp("damage")
    content = gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode(), mtime=0)
    cut = min(position, len(content) - 1)
    (directory / "a.jsonl.gz").write_bytes(content[:cut])
    records = read(directory)
    documents = [record for record in records if isinstance(record, Document)]
    assert [document.text for document in documents] == texts[: len(documents)]
    assert [record.reason for record in records[len(documents) :]] == ([DAMAGED] if cut else [])


def test_a_damaged_row_group_costs_no_other(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"text number {number} " + "x" * (number % 97) for number in range(3000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "url": texts}), path, row_group_size=1000)
    content = bytearray(path.read_bytes())
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    content[start : start + group.total_compressed_size] = bytes(group.total_compressed_size)
    path.write_bytes(content)
    records = read(path)
    lost = [record for record in records if isinstance(record, Rejected)]
    assert [(record.source, record.reason) for record in lost] == [("a.parquet:1001", "damaged row group")]
    found = [(r.source, r.text, r.url) for r in records if isinstance(r, Document)]
    numbers = [*range(1000), *range(2000, 3000)]
    assert found == [(f"a.parquet:{n + 1}", texts[n], texts[n]) for n in numbers]


def test_what_disappears_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    (file,) = find_files(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SeallmError, match=r"a\.jsonl has disappeared"):
        list(read_documents(file, CONFIG))


def warc(records: list[tuple[str, str, bytes]]) -> bytes:
    """A web archive, written by warcio."""
    pytest.importorskip("warcio")
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    output = io.BytesIO()
    writer = WARCWriter(output, gzip=True)
    for number, (kind, content_type, payload) in enumerate(records):
        headers = None
        if kind == "response":
            headers = StatusAndHeaders("200 OK", [("Content-Type", content_type)], protocol="HTTP/1.1")
        url = f"https://example.org/{number}"
        writer.write_record(writer.create_warc_record(url, kind, payload=io.BytesIO(payload), http_headers=headers))
    return output.getvalue()


PAGE = "<html><body><nav>Home | About</nav><article><p>{}</p></article><footer>(c)</footer></body></html>"
PARAGRAPH = "Pagi ini pasar di tepi sungai ramai sekali, dan ibu membeli ikan segar untuk makan siang keluarga. " * 3


def test_web_pages_and_extracted_text(tmp_path):
    pytest.importorskip("trafilatura")
    records = [
        ("request", "", b"GET / HTTP/1.1"),
        ("response", "text/html; charset=utf-8", PAGE.format(PARAGRAPH).encode()),
        ("response", "image/png", b"\x89PNG"),
        ("response", "text/html", b"<html></html>"),
        ("conversion", "text/plain", "ตลาดเช้า".encode()),
        ("conversion", "text/plain", b"\xff\xfe"),
    ]
    (tmp_path / "a.warc.gz").write_bytes(warc(records))
    page, *others = read(tmp_path)
    assert isinstance(page, Document) and page.text.strip() == PARAGRAPH.strip()
    assert page.url == "https://example.org/1"
    assert [getattr(record, "reason", None) for record in others] == [
        "not a web page",
        "no text in page",
        None,
        "invalid UTF-8",
    ]
    assert others[2] == Document("ตลาดเช้า", "", "a.warc.gz:5", "https://example.org/4")


@pytest.mark.parametrize("share", [0.05, 0.115, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_web_archive_ends_with_a_counted_record(tmp_path, share):
    content = warc([("conversion", "text/plain", bytes([65 + number]) * 5000) for number in range(9)])
    raw = gzip.decompress(content)
    for name, data in (("a.warc.gz", content), ("b.warc", raw)):
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        records = read(tmp_path / name)
        *documents, last = records
        assert isinstance(last, Rejected) and last.reason in UNREADABLE
        assert [document.text[:1] for document in documents] == list("ABCDEFGHI")[: len(documents)]
        assert all(len(document.text) == 5000 for document in documents)


def test_tensorflow_datasets_by_name(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyTexts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(25):
                yield number, {"text": f"ข้อความที่ {number}"}

    monkeypatch.setattr("seallm_jax.corpus.reader_tfds.SHARD_RECORDS", 10)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds, "builder", lambda name, **options: TinyTexts(data_dir=tmp_path, **options))
    files = find_files("tfds://tiny_texts:train")
    assert [(file.name, file.size) for file in files] == [
        ("tiny_texts:train#0", 10),
        ("tiny_texts:train#1", 10),
        ("tiny_texts:train#2", 5),
    ]
    documents = [record for file in files for record in read_documents(file, CONFIG)]
    assert sorted(document.text for document in documents) == sorted(f"ข้อความที่ {number}" for number in range(25))
    assert len({document.source for document in documents}) == 25
    with pytest.raises(SeallmError, match="cannot read tfds://tiny_texts:none"):
        find_files("tfds://tiny_texts:none")


def test_hugging_face_datasets_by_name(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for part in range(3):
        lines = [json.dumps({"text": f"part {part} line {line}", "lang": "id"}) for line in range(4)]
        (tmp_path / f"train-{part}.jsonl").write_text("\n".join(lines))
    files = find_files(f"datasets://{tmp_path}:train")
    assert len(files) == 3
    documents = [record for file in files for record in read_documents(file, CONFIG)]
    assert {document.text for document in documents} == {f"part {p} line {n}" for p in range(3) for n in range(4)}
    assert len({document.source for document in documents}) == 12 and documents[0].language == "id"
    with pytest.raises(SeallmError, match="cannot read datasets://"):
        find_files(f"datasets://{tmp_path}:validation")


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [("tfds://x", "tensorflow_datasets", "tfds"), ("datasets://x", "datasets", "datasets")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, address, module, extra):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SeallmError, match=rf"pip install 'seallm_jax\[{extra}\]'"):
        find_files(address)
