"""`seallm corpus` as a person uses it."""

import json

import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.corpus_files import corpus_texts
from tests.cli.conftest import CONFIGS

SENTENCE = "Pagi ini pasar di desa ramai karena ibu membeli sayur dan ikan segar untuk anak yang bermain bola"


@pytest.fixture
def files(tmp_path):
    directory = tmp_path / "in"
    directory.mkdir()
    for part in range(3):
        words = SENTENCE.split()
        lines = [json.dumps({"text": f"{SENTENCE} dan {word * (part + 1)}.", "lang": "id"}) for word in words]
        lines.append('{"text": "Ini kalimat pendek tetapi cukup panjang untuk disimpan.", "lang": "id"}')
        (directory / f"{part}.jsonl").write_text("\n".join(lines))
    (directory / "2.jsonl").write_bytes((directory / "2.jsonl").read_bytes() + b'\n{"text": "\xff"}\n')
    return directory


def arguments(files, workdir, *more):
    near = "--config.corpus.duplicates.near=false"
    run = [f"--config={CONFIGS / 'smoke.py'}", f"--workdir={workdir}", f"--config.corpus.path={files}"]
    return ["corpus", *run, near, *more]


def test_tables_and_parts(files, tmp_path, capsys):
    workdir = tmp_path / "work"
    assert main(arguments(files, workdir, "--tasks=2", "--workers=1", f"--json={tmp_path / 'out.json'}")) == 0
    output = capsys.readouterr()
    for words in ("documents read", "exact duplicate", "invalid UTF-8", "2.jsonl:20"):
        assert words in output.out, words
    assert "warning: 2.jsonl:20: invalid UTF-8" in output.err
    corpus = workdir / "corpus"
    assert {path.name for path in corpus.iterdir()} == {
        *("train", "heldout", "dropped-00000.jsonl", "dropped-00001.jsonl", "manifest.json")
    }
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["languages"] == ["id"]
    assert outcome["counts"]["id"]["train_documents"] == len(list(corpus_texts(corpus / "train", "id")))


def test_where_it_runs_is_no_reason_to_run_again(files, tmp_path, capsys):
    assert main(arguments(files, tmp_path / "work")) == 0
    capsys.readouterr()
    assert main(arguments(files, tmp_path / "work", "--tasks=3", "--executor=slurm")) == 0
    assert "up to date" in capsys.readouterr().err
    (files / "0.jsonl").write_text((files / "1.jsonl").read_text())
    assert main(arguments(files, tmp_path / "work")) == 0
    assert "inputs have changed" in capsys.readouterr().err.replace("\n", " ")


def test_evaluation_files_of_the_run_are_kept_out(files, tmp_path, capsys):
    quiz = tmp_path / "quiz_id.jsonl"
    text = json.loads((files / "1.jsonl").read_text().splitlines()[-1])["text"]
    quiz.write_text(json.dumps({"question": text, "choices": ["ya", "tidak"], "answer": 0}))
    assert main(arguments(files, tmp_path / "work", f"--config.evaluation.choices={quiz}")) == 0
    assert "contaminated" in capsys.readouterr().out
    assert text not in list(corpus_texts(tmp_path / "work" / "corpus" / "train", "id"))


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--tasks=0", 2, "config.corpus.execution.tasks is 0"),
        ("--executor=cloud", 2, "invalid choice"),
        ("--config.corpus.path=s4://bucket", 1, "cannot read s4://bucket"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, option, code, message):
    assert main(arguments(files, tmp_path / "work", option)) == code
    assert message in capsys.readouterr().err
