"""`seallm bench language` on the embedded sample."""

import json

from seallm_jax.cli.main import main
from seallm_jax.core.sample import sample_path


def test_sample(tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = [f"--corpus={sample_path('corpus')}", f"--parallel={sample_path('parallel')}"]
    languages = ["--languages", "id", "ms", "jv", "km"]
    assert main(["bench", "language", *arguments, *languages, f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    for level in ("document", "line", "sentence"):
        assert set(found[level]["seallm"]) == {"id", "ms", "jv", "km"}
        assert found[level]["seallm"]["km"] == found[level]["py3langid"]["km"] | {"precision": 1.0}
    assert found["document"]["seallm"]["jv"]["recall"] == 1.0
    assert found["sentence"]["seallm"]["id"]["texts"] == 40
    printed = capsys.readouterr().out
    assert "Taken for (by document)" in printed and "mean of id ms jv su min ban" in printed


def test_wrong_arguments(tmp_path, capsys):
    assert main(["bench", "language"]) == 2
    assert "give --corpus PATH or --parallel PATH" in capsys.readouterr().err
    assert main(["bench", "language", f"--corpus={sample_path('corpus')}", "--languages", "xx"]) == 1
    assert "no labelled text" in capsys.readouterr().err
