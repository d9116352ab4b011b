"""The corpus stage on good and on bad files."""

import gzip
import hashlib
import json
import pathlib
import resource

import pyarrow
import pyarrow.parquet
import pytest

from seallm_jax.core.corpus_config import CorpusConfig, DuplicatesConfig, ExecutionConfig, FilterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.pipeline import build_corpus
from seallm_jax.corpus.report import CorpusReport
from seallm_jax.corpus.sign_phase import SignPhase


def run(path, output, **options):
    """Without the filters, which made-up text does not pass."""
    config = CorpusConfig(path=str(path), filters=FilterConfig(enabled=False), **options)
    return build_corpus(config, output, seed=0, progress=Progress.silent())


def texts(language: str, number: int) -> list[str]:
    words = {"id": "pasar pagi itu ramai sekali karena ibu membeli sayur", "th": "ตลาดเช้าวันนี้คนเยอะมากเพราะวันหยุด"}[
        language
    ]
    return [f"{words} {number_as_text * 3}" for number_as_text in map(_letters, range(number))]


def _letters(number: int) -> str:
    return "".join("กขคงจฉชซญด"[int(digit)] for digit in f"{number:04d}") * 8


def test_all_formats_and_the_sum_of_the_counts(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    lines = [json.dumps({"text": t, "lang": "id"}) for t in texts("id", 50)]
    (source / "a.jsonl").write_text("\n".join(lines[:30]) + "\n" + lines[0] + "\n")
    with gzip.open(source / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(lines[30:]))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts("th", 60), "lang": ["tha"] * 60}), source / "c.parquet")
    (source / "km.txt").write_text("ផ្សារពេលព្រឹកមានមនុស្សច្រើនណាស់។\nបន្ទាត់ទីពីរ\n\nក្មេងៗទៅសាលារៀនដោយកង់ជារៀងរាល់ថ្ងៃ។\n")
    report = run(source, tmp_path / "out", duplicates=DuplicatesConfig(near=False))
    assert report.languages == ("id", "km", "th")
    for code, read in (("id", 51), ("th", 60), ("km", 2)):
        counts = report.counts[code]
        assert counts.documents_read == read
        assert counts.train_documents + counts.heldout_documents + sum(counts.dropped.values()) == read
        train = list(read_jsonl(tmp_path / "out" / "train" / f"{code}.jsonl"))
        heldout = list(read_jsonl(tmp_path / "out" / "heldout" / f"{code}.jsonl"))
        assert (len(train), len(heldout)) == (counts.train_documents, counts.heldout_documents)
        assert not {r["text"] for r in train} & {r["text"] for r in heldout}
        assert sum(len(r["text"].encode()) for r in train) == counts.train_bytes
    assert report.counts["id"].dropped == {"exact duplicate": 1}
    assert report.counts["id"].heldout_documents == 1 and report.counts["km"].heldout_documents == 1
    assert CorpusReport.from_json(json.loads(json.dumps(report.to_json()))).table() == report.table()


def test_holdout_does_not_depend_on_order(tmp_path):
    lines = [json.dumps({"text": t, "lang": "th"}) for t in texts("th", 100)]
    for name, order in (("a", lines), ("b", lines[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_text("\n".join(order))
        run(tmp_path / name, tmp_path / f"out_{name}", duplicates=DuplicatesConfig(near=False))
    a, b = ({r["text"] for r in read_jsonl(tmp_path / f"out_{n}" / "heldout" / "th.jsonl")} for n in "ab")
    assert a == b and len(a) == 2


def test_bad_records_are_counted_and_named(tmp_path):
    good = json.dumps({"text": texts("id", 9)[4], "lang": "id"}).encode()
    other = json.dumps({"text": "Anak-anak bermain bola di lapangan desa.", "lang": "id"}).encode()
    bad = [
        b'{"text": "abc\xff\xfe"}',
        b"{not json",
        b'{"content": "no text field"}',
        b'{"text": "short", "lang": "id"}',
    ]
    wrong = json.dumps({"text": "This is an English sentence, certainly.", "lang": "km"}).encode()
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([good, *bad, wrong, other]))
    report = run(tmp_path / "x.jsonl", tmp_path / "out")
    dropped = {record["source"]: record["reason"] for record in read_jsonl(tmp_path / "out" / "dropped.jsonl")}
    assert dropped == {
        "x.jsonl:2": "invalid UTF-8",
        "x.jsonl:3": "invalid JSON",
        "x.jsonl:4": "no text in 'text'",
        "x.jsonl:5": "too short",
        "x.jsonl:6": "wrong script",
    }
    assert report.counts["id"].train_documents == 1


def test_languages_are_identified_where_no_label_is(tmp_path):
    samples = {
        "th": ["วันนี้อากาศดีมาก เราจึงไปเดินเล่นที่สวน", "แม่ค้าขายข้าวต้มทุกเช้าที่หน้าตลาด"],
        "vi": ["Hôm nay trời đẹp nên chúng tôi đi dạo trong công viên.", "Người bán hàng nấu cháo mỗi buổi sáng."],
        "my": ["ဒီနေ့ ရာသီဥတု ကောင်းပါတယ်။ ပန်းခြံကို သွားကြမယ်။", "ဈေးသည်က မနက်တိုင်း ဆန်ပြုတ် ရောင်းပါတယ်။"],
    }
    with open(tmp_path / "mixed.jsonl", "w") as file:
        for group in samples.values():
            for text in group:
                file.write(json.dumps({"text": text}) + "\n")
    assert run(tmp_path, tmp_path / "out").languages == ("my", "th", "vi")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.parquet", b"PAR1 but not really", r"1 damaged file \(broken\.parquet:1: .*are the files UTF-8"),
        ("noise.jsonl", b"\xff\xfe\xff\n\xff\xfe", "2 invalid UTF-8; are the files UTF-8"),
        ("noise.txt", b"\xff\xfe\xff\xff", "1 invalid UTF-8; are the files UTF-8"),
        (
            "cut.jsonl.gz",
            gzip.compress(b'{"text": "x"}\n' * 500, mtime=0)[:40],
            r"1 damaged file \(cut\.jsonl\.gz:1: .*ended",
        ),
        ("tiny.jsonl", b'{"text": "x"}\n', "empty after cleaning: 1 too short"),
        ("empty.jsonl", b"", "is empty: no record in any file"),
        ("notes.md", b"text", "has no .jsonl"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(tmp_path, name, content, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    output = tmp_path / "out"
    output.mkdir()
    (output / "earlier").write_text("kept")
    with pytest.raises(SeallmError, match=message) as error:
        run(tmp_path / "in", output)
    assert "\n" not in str(error.value)
    assert (output / "earlier").read_text() == "kept"
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}


def test_truncated_parquet(tmp_path):
    path = tmp_path / "half.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts("id", 500)}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeallmError, match=r"1 damaged file \(half\.parquet:1"):
        run(path, tmp_path / "out")


def test_parquet_without_the_column(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"content": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(SeallmError, match="no column 'text', only content"):
        run(tmp_path / "x.parquet", tmp_path / "out")


def test_missing_path(tmp_path):
    with pytest.raises(SeallmError, match="does not exist"):
        run(tmp_path / "none", tmp_path / "out")


def contents(directory) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in sorted(directory.rglob("*.jsonl"))}


def test_the_held_out_part_has_the_smallest_hashes(messy_corpus, tmp_path):
    run(messy_corpus, tmp_path / "out", holdout_fraction=0.13)
    for code in ("id", "th", "km", "jv"):
        train, heldout = (
            [r["text"] for r in read_jsonl(tmp_path / "out" / kind / f"{code}.jsonl")] for kind in ("train", "heldout")
        )
        ordered = sorted(train + heldout, key=lambda text: hashlib.sha256(f"0\0{text}".encode()).digest())
        assert set(heldout) == set(ordered[: round(0.13 * len(ordered))])


def test_a_full_disk_is_one_line_and_a_rerun_continues(messy_corpus, tmp_path):
    options = {"duplicates": DuplicatesConfig(near=False)}
    run(messy_corpus, tmp_path / "whole", **options)
    output = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in (tmp_path / "whole" / "train").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))  # working files are smaller
    try:
        with pytest.raises(SeallmError, match=r"cannot write .*train.*File too large") as error:
            run(messy_corpus, output, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and not (output / "train").exists()
    cleaned = {path: path.stat().st_mtime_ns for path in (output / "work" / "clean").iterdir()}
    assert len(cleaned) == 18 and not list(output.rglob("*.tmp"))
    run(messy_corpus, output, **options)
    assert contents(output) == contents(tmp_path / "whole") and not (output / "work").exists()


@pytest.mark.parametrize("tasks", [2, 3])
def test_finished_files_are_not_read_again(messy_corpus, tmp_path, monkeypatch, tasks):
    """The phase after reading fails: the second attempt, even with other tasks, needs no input file any more."""
    one, other = (ExecutionConfig(tasks=number, workers=1) for number in (2, tasks))
    with monkeypatch.context() as patch:
        patch.setattr(SignPhase, "process", lambda self, task: (_ for _ in ()).throw(SeallmError("stopped here")))
        with pytest.raises(SeallmError, match="stopped here"):
            run(messy_corpus, tmp_path / "out", execution=one)
    with monkeypatch.context() as patch:
        patch.setattr("seallm_jax.corpus.clean_phase.read_documents", None)
        run(messy_corpus, tmp_path / "out", execution=other)
    run(messy_corpus, tmp_path / "whole", execution=other)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_working_files_of_another_config_are_not_used(messy_corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SignPhase, "process", lambda self, task: (_ for _ in ()).throw(SeallmError("stopped here")))
        with pytest.raises(SeallmError, match="stopped here"):
            run(messy_corpus, tmp_path / "out", languages=("th",))
    assert run(messy_corpus, tmp_path / "out").languages == ("id", "jv", "km", "th")


def test_a_new_corpus_takes_the_place_of_the_old_one(messy_corpus, tmp_path, monkeypatch):
    run(messy_corpus, tmp_path / "whole", languages=("th",))
    run(messy_corpus, tmp_path / "out", execution=ExecutionConfig(tasks=3, workers=1))
    assert (tmp_path / "out" / "dropped-00002.jsonl").exists()
    # killed while the files are moved into place
    renamed = []

    def rename(self, target):
        if len(renamed) == 2:
            raise KeyboardInterrupt
        renamed.append(self.replace(target))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            run(messy_corpus, tmp_path / "out", languages=("th",))
    run(messy_corpus, tmp_path / "out", languages=("th",))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_unreadable_records_are_named_on_the_screen(messy_corpus, tmp_path, capsys):
    build_corpus(CorpusConfig(path=str(messy_corpus)), tmp_path / "out", seed=0, progress=Progress())
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("warning: part") and ": invalid" in line]) == 3
    assert any("12 unreadable records were left out" in line for line in lines)
