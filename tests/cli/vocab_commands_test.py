"""`seallm vocab learn|extend|merge|report` on files."""

import json

import pytest
import transformers

from seallm_jax.cli.main import main
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.tokenizer import Tokenizer

CORPUS = sample_path("corpus")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vocab") / "base"
    assert main(["vocab", "learn", "--corpus", str(CORPUS / "en.jsonl"), "--size=900", f"--output={directory}"]) == 0
    return directory


@pytest.fixture(scope="module")
def extended(base):
    directory = base.parent / "extended"
    arguments = [
        "vocab",
        "extend",
        f"--tokenizer={base}",
        "--corpus",
        str(CORPUS / "th.jsonl"),
        str(CORPUS / "lo.jsonl"),
    ]
    options = ["--size=200", "--budget", "lo=80", "--pad-to=128", "--protected_scripts", "Latin"]
    result = base.parent / "extended.json"
    assert main([*arguments, *options, f"--output={directory}", f"--json={result}"]) == 0
    return directory, json.loads(result.read_text())


def test_extend(base, extended):
    directory, result = extended
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.size == result["size"] == 1152 and result["new_tokens"] == 1152 - Tokenizer.load(base).size
    assert result["new_tokens_by_language"]["lo"] == 80
    assert Extension.load(directory).method == "continued_bpe"
    text = "ພາສາລາວ kucing ภาษาไทย"
    fast = transformers.AutoTokenizer.from_pretrained(directory)
    assert fast(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)


def test_report(base, extended, tmp_path, capsys):
    files = [str(CORPUS / f"{code}.jsonl") for code in ("en", "th")]
    arguments = ["vocab", "report", f"--tokenizer={extended[0]}", f"--base={base}", "--corpus", *files]
    outputs = [
        f"--parallel={sample_path('parallel')}",
        f"--plot={tmp_path / 'plot.svg'}",
        f"--json={tmp_path / 'r.json'}",
    ]
    assert main([*arguments, *outputs]) == 0
    shown = capsys.readouterr().out
    assert "tokens that no text reaches: 0 -> 0; English lines with the same ids: 100.00%" in shown
    assert "Renyi" in shown and "vs English" in shown
    report = json.loads((tmp_path / "r.json").read_text())
    assert {row["language"] for row in report["fertility"]} >= {"en", "th"}
    assert (tmp_path / "plot.svg").exists()


def test_merge(base, tmp_path):
    models = []
    for code in ("th", "id"):
        models.append(str(tmp_path / code))
        corpus = str(CORPUS / f"{code}.jsonl")
        assert main(["vocab", "learn", "--corpus", corpus, "--size=700", f"--output={models[-1]}"]) == 0
    arguments = ["vocab", "merge", f"--tokenizer={base}", "--models", *models, "--size=150"]
    with_text = ["--corpus", str(CORPUS / "th.jsonl"), str(CORPUS / "id.jsonl")]
    for name, more in (("plain", []), ("text", with_text), ("append", ["--method=append"])):
        assert main([*arguments, *more, f"--output={tmp_path / name}"]) == 0
        merged = Tokenizer.load(tmp_path / name)
        assert merged.size == Tokenizer.load(base).size + 150
        pieces = {merged.piece(index) for index in range(Tokenizer.load(base).size, merged.size)}
        assert pieces <= set().union(*(Tokenizer.load(model).mergeable_pieces for model in models))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extend", "--output=x"], 2, "give --size=N, or a --budget"),
        (["extend", "--size=10", "--budget", "th:5", "--output=x"], 2, "cannot read the budget 'th:5'"),
        (["extend", "--size=10", "--method=donor", "--output=x"], 1, "needs a donor vocabulary"),
        (["extend", "--size=100000", "--strict", "--output=x"], 1, "the text supports"),
        (["extend", "--size=10", "--method=magic", "--output=x"], 2, "invalid choice: 'magic'"),
        (["extend", "--size=10", "--donor", "/none", "--method=merge", "--output=x"], 1, "/none does not exist"),
        (["report", "--base=/none"], 1, "/none"),
    ],
)
def test_wrong_use(base, arguments, code, message, capsys):
    command, *rest = arguments
    corpus = ["--corpus", str(CORPUS / "lo.jsonl")]
    assert main(["vocab", command, f"--tokenizer={base}", *corpus, *rest]) == code
    assert message in capsys.readouterr().err
