"""`seallm bench data`, on rows that take no time."""

import json

from seallm_jax.cli import bench_data
from seallm_jax.cli.main import main

SMALL = ["--sources=2", "--rows=64", "--sequence_length=64", "--batch_rows=8", "--seconds=0.2", "--repeats=1", "--cold"]


def test_every_loader_is_measured_and_one_that_is_not_installed_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_data.importlib.util, "find_spec", lambda name: None)
    result = tmp_path / "result.json"
    arguments = [*SMALL, f"--directory={tmp_path / 'files'}", f"--json={result}"]
    assert main(["bench", "data", *arguments, "--loaders", "grain", "datasets"]) == 0
    found = json.loads(result.read_text())["loaders"]
    assert set(found) == {"seallm", "grain"} and found["seallm"]["ratio"] == 1
    for loader in found.values():
        assert loader["tokens_per_processor_second"] > 0 and len(loader["megabytes_over_time"]) > 2
        assert loader["ratio"] == loader["tokens_per_processor_second"] / found["seallm"]["tokens_per_processor_second"]
    assert not list((tmp_path / "files").iterdir())
    assert "datasets is not installed, so its interleave is left out" in capsys.readouterr().out


def test_too_few_rows_are_refused(capsys):
    assert main(["bench", "data", "--rows=100", "--sources=2"]) == 2
    assert "--rows=100 is too few for 2 sources" in capsys.readouterr().err
