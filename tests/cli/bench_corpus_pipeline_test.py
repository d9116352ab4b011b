"""`seallm bench corpus`: the speed of the whole stage."""

import json

import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.sample import sample_path


def test_the_stage_reads_every_copy(tmp_path, capsys):
    corpus = sample_path("corpus")
    result = tmp_path / "result.json"
    assert main(["bench", "corpus", "--corpus", str(corpus), "--copies=2", f"--json={result}"]) == 0
    stage = json.loads(result.read_text())["stage"]
    records = [line for path in corpus.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert stage["documents"] == 2 * len(records) and stage["kept"] <= len(records)  # copies are duplicates
    assert stage["MB"] == pytest.approx(
        2e-6 * sum(len(json.loads(line)["text"].encode()) for line in records), rel=0.01
    )
    assert stage["MB a CPU second"] == pytest.approx(stage["MB"] / stage["CPU seconds"])
    assert "The whole corpus stage" in capsys.readouterr().out
