"""`seallm bench`, on a model that takes no time."""

import json

from seallm_jax.cli.main import main


def test_convert_measures_both_ways(tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["--size=tiny", "--devices=2", "--repeats=1", f"--directory={tmp_path / 'files'}", f"--json={result}"]
    assert main(["bench", "convert", *arguments]) == 0
    found = json.loads(result.read_text())
    for name in ("import", "export"):
        assert found[name]["floor"] > 0 and found[name]["ratio"] == found[name]["ours"] / found[name]["floor"]
        assert 0 <= found[name]["extra_gigabytes"] < 0.5
    assert not list((tmp_path / "files").iterdir())
    assert "warm" in capsys.readouterr().out


def test_a_benchmark_must_be_named(capsys):
    assert main(["bench"]) == 2
    assert "seallm bench convert" in capsys.readouterr().err
