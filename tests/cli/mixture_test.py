"""`seallm mixture`: the plan, what was served beside it, and the search."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from seallm_jax.cli import mixture_search
from seallm_jax.cli.main import main
from seallm_jax.cli.mixture import never_served, share_table
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source import Source
from tests.cli.conftest import arguments

TINY = (
    "--config.search.mixtures=20",
    "--config.search.tokens=4096",
    "--config.search.model.hidden_size=16",
    "--config.search.model.intermediate_size=32",
    "--config.search.model.num_layers=1",
    "--config.search.model.num_heads=1",
    "--config.search.model.num_key_value_heads=1",
    "--config.search.model.head_size=16",
)


def test_five_hundred_sources_print_as_the_largest_and_the_rest():
    shares = np.random.default_rng(0).dirichlet(np.ones(500))
    records = [
        {"stage": stage, "source": f"text/l{i}", "share": share, "tokens": round(share * 1e6), "epochs_total": i / 100}
        for stage in ("a", "b")
        for i, share in enumerate(shares)
    ]
    table = share_table(records)
    assert len(table) == 41 and table[-1]["source"] == "460 others"
    assert sum(row["tokens"] for row in table) == pytest.approx(2e6, rel=1e-3)
    assert sum(float(row["b"].rstrip("%")) for row in table) == pytest.approx(100, abs=2)
    assert min(row["tokens"] for row in table[:-1]) >= 2e6 * np.sort(shares)[-41]
    assert table[-1]["epochs"].startswith("up to 4.9")
    assert share_table(records[:40])[-1]["source"] == "text/l39"


def test_what_is_never_served_is_named():
    sources = [Source("text/en", 9), Source("text/km", 9), Source("text/lo", 0)]
    sources += [Source(f"instructions/{code}", 9) for code in ("en", "vi")]
    stage = StageConfig(tokens=160, mixture="explicit", weights={"text/en": 1.0})
    curriculum = Curriculum.compile((stage,), sources, sequence_length=8, batch_rows=4, seed=0)
    assert never_served(curriculum) == ["text/km", "instructions/*"]


def test_what_was_served_is_what_the_run_wrote_down(finished_run, capsys):
    output = finished_run.parent / "served.json"
    assert main([*arguments("mixture", finished_run, "--from-run"), f"--json={output}"]) == 0
    served = json.loads(output.read_text())["served"]
    assert set(served) == {"pretrain", "hybrid", "sft", "preference"}
    printed = capsys.readouterr().out
    for name, tables in served.items():
        last = json.loads((finished_run / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert (
            tables["rows"] == last["rows"] == tables["budget_rows"] == sum(s["served rows"] for s in tables["sources"])
        )
        assert all(abs(source["difference"]) < 1.05 for source in tables["sources"])
        assert (finished_run / "mixture" / f"{name}-served.png").exists()
        assert f"Served by {name}: {last['rows']:,} of {last['rows']:,} rows" in printed
    lines = [json.loads(line) for line in (finished_run / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    learned = {row["language"]: row["tokens"] for row in served["pretrain"]["languages"]}
    assert sum(learned.values()) == sum(sum(line["counts_by_language"].values()) for line in lines)


def test_nothing_served_yet(finished_run, tmp_path, capsys):
    for stage in ("corpus", "base", "tokenizer", "tokens"):
        shutil.copytree(finished_run / stage, tmp_path / "run" / stage)
    assert main(arguments("mixture", tmp_path / "run", "--from-run")) == 1
    assert "no training stage has written metrics" in capsys.readouterr().err


def losses(codes, shares):
    """Bits per byte that fall with a language's own share, in each language more than in the one before."""
    pairs = enumerate(zip(codes, shares, strict=True), start=1)
    return {code: 2.0 * (0.05 + share) ** (-0.05 * number) for number, (code, share) in pairs}


def test_a_search_that_was_killed_trains_each_model_once(finished_run, monkeypatch, tmp_path):
    """Every model is made up here; a kill leaves half a line."""
    trained, stop_after = [], 4

    def train(study, mixtures, advance):
        for name, shares in mixtures.items():
            if len(trained) == stop_after:
                raise KeyboardInterrupt
            trained.append(name)
            yield {"name": name, "shares": shares, "bits_per_byte": losses(study.codes, shares), "seconds": 0.0}

    monkeypatch.setattr(mixture_search._Study, "_train", train)
    shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("search"))
    command = ["mixture", *arguments("search", tmp_path / "run", *TINY)]
    assert main(command) == 130
    file = tmp_path / "run" / "search" / "proxies.jsonl"
    with open(file, "a", encoding="utf-8") as torn:
        torn.write('{"name": "sample 1", "shares": [0.')
    stop_after = 100
    assert main([*command, f"--json={tmp_path / 'result.json'}"]) == 0
    assert len(trained) == len(set(trained)) == 21 and trained[-1] == "proposal"
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == trained
    assert main(command) == 0 and len(trained) == 21  # all is there
    result = json.loads((tmp_path / "result.json").read_text())
    assert [record["name"] for record in result["mixtures"]][:3] == list(mixture_search.FIXED)
    assert result["confirmed"]["objective"] < min(record["objective"] for record in result["mixtures"])
    assert main([*command, "--config.search.tokens=8192"]) == 0
    assert len(trained) == 42  # other models: none of them was there


def test_a_search_from_text_to_a_stage(finished_run, capsys, tmp_path):
    command = ["mixture", *arguments("search", finished_run, *TINY)]
    assert main([*command, f"--json={tmp_path / 'result.json'}"]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert sum(result["shares"]) == pytest.approx(1, abs=1e-4) and len(result["mixtures"]) == 20
    assert set(result["predicted"]) == set(result["confirmed"]["bits_per_byte"]) == set(result["trust"]["by_language"])
    assert (finished_run / "search" / "proposal.png").read_bytes()[:4] == b"\x89PNG"
    stage = eval(printed[printed.index("dict(\n") : printed.index("\nplot:")])  # what is printed is Python
    assert stage["mixture"] == "explicit" and sum(stage["weights"].values()) == pytest.approx(1, abs=0.01)
    assert main([*command, "--config.search.mixtures=19"]) == 2
    assert "config.search.mixtures = 19 for 10 sources; it must be at least 20" in capsys.readouterr().err
    assert main([*command, "--config.search.weights.xx=2"]) == 2
    assert "config.search.weights has xx; there is held-out text in" in capsys.readouterr().err
