"""`seallm plan`: what it prints and saves. The compiler is made up here; tests/planning has the real one."""

from __future__ import annotations

import json

import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.config import load_config
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.planning import compile as planning
from seallm_jax.planning import generation
from seallm_jax.planning.candidate import Candidate
from seallm_jax.planning.generation import GenerationPlan
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.rough_cost import RoughCost
from seallm_jax.planning.step_time import ERROR
from seallm_jax.planning.topology import GIB, Topology
from tests.cli.conftest import CONFIGS
from tests.planning.plans import TOO_LARGE, plan, step_time

CONFIG = CONFIGS / "llama2_7b.py"


@pytest.fixture
def compiled(monkeypatch):
    """The (train, mesh) that were compiled: 12 GiB of 16 for the config as it is, else by the rules of thumb."""
    calls = []

    def plan_step(model, train, packing, mesh, topology, **_) -> Plan:
        calls.append((train, mesh))
        parsed = Topology.parse(topology)
        sizes = build_mesh(mesh, [_Device()] * parsed.devices).shape
        candidate = Candidate(MeshConfig(**sizes), train.remat, train.batch_rows, train.accumulation)
        cost = RoughCost(model, train, packing, parsed)
        usual = RoughCost(model, train, packing, Topology.parse("v5e:16x16"))
        unit = 12 * GIB / usual.bytes(Candidate(MeshConfig(fsdp=256), "full", 256, 1))
        needed = int(unit * cost.bytes(candidate))
        values = {
            "topology": topology,
            "devices": parsed.devices,
            "mesh": dict(sizes),
            "batch_rows": train.batch_rows,
            "accumulation": train.accumulation,
            "remat": train.remat,
            "time": step_time(cost.seconds(candidate)),
            "peak_bytes": needed,
        }
        return plan(**values | (TOO_LARGE | {"needed_bytes": needed} if needed > 16 * GIB else {}))

    monkeypatch.setattr(planning, "plan_step", plan_step)
    return calls


class _Device:
    platform = "cpu"


def run(tmp_path, *arguments: str) -> int:
    return main(["plan", f"--config={CONFIG}", f"--workdir={tmp_path}", *arguments])


def test_what_fits(compiled, tmp_path, capsys):
    assert run(tmp_path, "--topology=v5e:16x16", f"--json={tmp_path / 'out.json'}") == 0
    assert len(compiled) == 1
    text = capsys.readouterr().out
    for part in ("12.00 GiB of 16.00 GiB (75%)", "verdict", "predicted time of a step", "exposed all reduce", "MFU"):
        assert part in text, text
    assert "30B tokens in " in text and " of steps" in text and f"error: {ERROR}" in text
    saved = json.loads((tmp_path / "plan" / "pretrain-v5e-16x16.json").read_text())
    assert saved == json.loads((tmp_path / "out.json").read_text())
    found = Plan.of_json(saved)
    assert found.time is not None
    assert saved["tokens_per_day"] == pytest.approx(86_400 * 256 * 2048 / found.time.seconds)
    assert (tmp_path / "plan" / "pretrain-v5e-16x16.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_is_mended_with_the_compiler(compiled, tmp_path, capsys):
    assert run(tmp_path, "--topology=v5e:16x16", "--config.pretrain.batch_rows=1024") == 0
    text = capsys.readouterr().out
    assert "does not fit, by" in text and "this fits: " in text and len(compiled) == 2
    saved = json.loads((tmp_path / "plan" / "pretrain-v5e-16x16.json").read_text())
    (override,) = saved["best"]["overrides"]  # one setting is enough
    assert not saved["fits"] and override in text and saved["best"]["plan"]["fits"]
    mended = load_config(CONFIG, ["--config.pretrain.batch_rows=1024", override])
    assert mended.pretrain is not None and (compiled[1][0].remat, compiled[1][0].accumulation) == (
        mended.pretrain.remat,
        mended.pretrain.accumulation,
    )


def test_a_slice_that_is_too_small_names_a_larger_one(compiled, tmp_path, capsys):
    arguments = ["--topology=v5e:2x2", "--config.pretrain.batch_rows=64"]
    assert run(tmp_path, *arguments) == 0
    text = capsys.readouterr().out
    assert "does not fit" in text and "should fit: --topology=v5e:" in text


def test_search(compiled, tmp_path, capsys):
    assert run(tmp_path, "--topology=v5e:16x16", "--search", "--compiles=5", "--config.mesh.tensor=4") == 0
    text = capsys.readouterr().out
    assert 2 <= len(compiled) <= 5 and len(set(map(str, compiled))) == len(compiled)
    assert "best with 256 rows a step" in text and "x the config as it is" in text
    saved = json.loads((tmp_path / "plan" / "pretrain-v5e-16x16-search.json").read_text())
    assert len(saved["trials"]) == len(compiled)
    fastest = max(trial["plan"]["tokens_per_second"] or 0 for trial in saved["trials"] if trial["plan"])
    assert saved["best"]["plan"]["tokens_per_second"] == fastest
    best = load_config(CONFIG, saved["best"]["overrides"])
    assert best.mesh.tensor == saved["best"]["plan"]["mesh"]["tensor"]
    assert (tmp_path / "plan" / "pretrain-v5e-16x16-search.png").exists()


def test_without_a_prediction_it_says_why(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(planning, "plan_step", lambda *_, **__: plan(time=None, time_missing="no text"))
    assert run(tmp_path, "--topology=v5e:16x16") == 0
    text = capsys.readouterr().out
    assert "no prediction of the time: no text" in text and "tokens per day" not in text and "7.00 GiB" in text


def test_generation(monkeypatch, tmp_path, capsys):
    def plan_generation(model, settings, mesh, topology, *, rows, positions) -> GenerationPlan:
        return GenerationPlan(
            *(topology, 4, {"fsdp": 4}, rows, positions, settings.maximum_new_tokens),
            *(GIB, GIB // 2, GIB, 3 * GIB, 16 * GIB, None, 1.0, True, step_time(0.1), step_time(0.01), ""),
        )

    monkeypatch.setattr(generation, "plan_generation", plan_generation)
    arguments = ["--stage=generation", "--topology=v5e:2x2", "--rows=8", "--positions=100"]
    assert run(tmp_path, *arguments, "--config.generation.maximum_new_tokens=11") == 0
    text = capsys.readouterr().out
    assert "8 of 100 tokens, and 11 new tokens each" in text and "8,000 tokens/s" in text and "800 tokens/s" in text
    saved = json.loads((tmp_path / "plan" / "generation-v5e-2x2.json").read_text())
    assert saved["tokens_per_second"] == pytest.approx(8 * 11 / (0.1 + 10 * 0.01))
    assert run(tmp_path, *arguments, "--search") == 2
    assert "--search looks for settings of training" in capsys.readouterr().err
