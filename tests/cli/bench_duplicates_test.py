"""`seallm bench duplicates` at toy size."""

import json

import pytest

from seallm_jax.cli.main import main


def test_copies_are_found_and_nothing_else(tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["--documents=2000", "--peer-documents=600", "--units=3", f"--directory={tmp_path}"]
    assert main(["bench", "duplicates", *arguments, f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    assert found["documents"] == 2000 and found["originals_dropped"] == 0
    assert found["recall"][-1]["found"] == 1.0 and found["recall"][-1]["expected"] == pytest.approx(1.0, abs=0.01)
    assert [peer[""] for peer in found["peers"]] == ["seallm", "datasketch", "rensa"]
    assert all(peer["no copies"] == 0 and peer["found from 0.85"] > 0.7 for peer in found["peers"])
    assert "MB per processor second" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_bad_numbers(capsys):
    assert main(["bench", "duplicates", "--documents=5"]) == 2
    assert "--documents=100 or more" in capsys.readouterr().err
