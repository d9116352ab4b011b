"""`seallm bench decontamination` at toy size."""

import json

from seallm_jax.cli.main import main


def test_every_case_is_decided_rightly(tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main(["bench", "decontamination", "--texts=150", "--documents=300", f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    assert len(found["cases"]) == 8 and all(case["found"] == case["should be"] for case in found["cases"])
    assert sum(case["documents"] for case in found["cases"]) > 900
    assert all(speed["found"] == 0 and speed["MB per processor second"] > 0 for speed in found["speed"])
    assert "set of n-grams" in capsys.readouterr().out


def test_bad_numbers(capsys):
    assert main(["bench", "decontamination", "--texts=0"]) == 2
    assert "--texts=1 or more" in capsys.readouterr().err
