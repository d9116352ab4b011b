import json

from seallm_jax.cli.main import main


def test_a_schedule_is_built_reopened_and_sought(tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main(["bench", "curriculum", "--rows=120000", "--sources=30", f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    assert found["largest_error"] < 1
    assert 0 < found["seek_ms"] <= found["slowest_seek_ms"]
    assert "30 sources" in capsys.readouterr().out


def test_too_few_rows_are_refused(capsys):
    assert main(["bench", "curriculum", "--rows=10"]) == 2
    assert "--rows=10" in capsys.readouterr().err
