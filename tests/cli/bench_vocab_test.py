"""`seallm bench vocab` on the embedded sample."""

import json

import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.paths import write_jsonl
from seallm_jax.core.sample import sample_path

CORPUS = sample_path("corpus")


@pytest.fixture
def arguments(tmp_path):
    base = tmp_path / "base"
    assert main(["vocab", "learn", "--corpus", str(CORPUS / "en.jsonl"), "--size=900", f"--output={base}"]) == 0
    corpus = [str(CORPUS / f"{code}.jsonl") for code in ("en", "th", "lo")]
    return ["bench", "vocab", f"--tokenizer={base}", "--corpus", *corpus, "--size=150", "--minimum_frequency=2"]


def test_methods_side_by_side(arguments, tmp_path, capsys):
    texts = {
        code: [json.loads(line)["text"] for line in (CORPUS / f"{code}.jsonl").read_text("utf-8").splitlines()]
        for code in ("en", "th", "lo")
    }
    records = [
        {"document": f"d{number}"} | {code: texts[code][number].replace("\n", " ") for code in texts}
        for number in range(6)
    ]
    write_jsonl(tmp_path / "aligned.jsonl", records)
    methods = ["append", "continued_bpe@1", "continued_bpe+Latin", "merge", "donor"]
    more = [
        "--methods",
        *methods,
        "--verify",
        f"--heldout={tmp_path / 'aligned.jsonl'}",
        f"--json={tmp_path / 'r.json'}",
    ]
    assert main([*arguments, *more]) == 0
    results = json.loads((tmp_path / "r.json").read_text())["methods"]
    assert [result["method"] for result in results] == methods
    for result in results:
        assert result["new_tokens"] == 150 and result["verified"]["lines"] > 100
        assert result["unreachable_new_tokens"] == 0 or result["method"] == "append"
    assert results[2]["english_unchanged"] == 1.0
    lao = [next(row for row in result["fertility"] if row["language"] == "lo") for result in results]
    assert all(row["ratio"] < 0.9 and row["base_relative"] > row["extended_relative"] for row in lao)
    assert "continued_bpe+Latin" in capsys.readouterr().out


def test_held_out_documents_are_not_learned_from(arguments, tmp_path, capsys):
    more = ["--methods", "append", f"--heldout={CORPUS / 'lo.jsonl'}", f"--json={tmp_path / 'r.json'}"]
    assert main([*arguments, *more]) == 0
    assert "less 0 held-out" not in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["methods"][0]["fertility"][0]["language"] == "lo"


@pytest.mark.parametrize("method", ["magic", "append@x"])
def test_wrong_use(arguments, method, capsys):
    assert main([*arguments, "--heldout=x", "--methods", method]) == 2
    assert f"no method {method!r}" in capsys.readouterr().err
