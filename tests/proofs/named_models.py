"""Known base models compiled for pods: each fits, in the memory of tests/golden/named_models.json.

    pytest tests/proofs/named_models.py   all of them: a minute or two of one core each
    pytest tests/proofs/named_models.py --named-models=llama2_7b,qwen3_8b
    pytest tests/proofs/named_models.py --update-golden   after a change that is meant; read the difference

Another libtpu than the golden file's may need other memory; then the tolerance is wider, and nothing is skipped.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib

import pytest

from seallm_jax.cli.plan import planned_shape
from seallm_jax.core.config import load_config
from seallm_jax.core.paths import atomic_file
from seallm_jax.planning.compile import plan_step

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "golden" / "named_models.json"
CONFIG = ROOT.parent / "configs" / "base_models.py"
SAME_COMPILER, OTHER_COMPILER = 0.02, 0.25  # relative differences of the peak
SIZES = ("parameter_bytes", "optimizer_bytes", "temporary_bytes", "peak_bytes")

# model, topology: rows of a step
CASES = {
    ("llama3_1_8b", "v6e:2x4"): 8,
    ("llama3_1_8b", "v6e:16x16"): 512,
    ("llama2_7b", "v5e:16x16"): 512,
    ("llama2_7b", "v5p:4x4x8"): 512,
    ("llama2_13b", "v5e:16x16"): 512,
    ("llama2_13b", "v5p:4x4x8"): 512,
    ("qwen2_7b", "v5p:8x8x8"): 512,
    ("qwen2_72b", "v5p:8x8x8"): 512,
    ("qwen3_8b", "v5e:16x16"): 512,
    ("bloom_7b1", "v5e:16x16"): 512,
    ("gemma2_9b", "v6e:16x16"): 512,
}


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("--named-models")
    cases = [case for case in CASES if asked == "all" or case[0] in asked.split(",")]
    assert cases, f"--named-models={asked}: use all, or some of {', '.join(dict(CASES))}"
    metafunc.parametrize("case", cases, ids="-".join)


def test_it_fits_in_the_memory_of_the_golden_file(case, request):
    pytest.importorskip("libtpu")
    name, topology = case
    config = load_config(f"{CONFIG}:{name}", [f"--config.pretrain.batch_rows={CASES[case]}"])
    train = dataclasses.replace(config.pretrain, curriculum=())
    plan = plan_step(planned_shape(config), train, config.packing, config.mesh, topology, predict=False)
    assert plan.fits, f"{name} needs {plan.needed_bytes} bytes on {topology}, {plan.exceeds_bytes} too many"
    found = {size: getattr(plan, size) for size in SIZES}
    print(f"{name} {topology}: {plan.peak_bytes / 2**30:.2f} GiB in {plan.compile_seconds:.0f} s")
    compiler = importlib.metadata.version("libtpu")
    if request.config.getoption("--update-golden"):
        _write("-".join(case), found | {"libtpu": compiler})
        return
    golden = json.loads(GOLDEN.read_text())["-".join(case)]
    assert {key: found[key] for key in SIZES[:2]} == {key: golden[key] for key in SIZES[:2]}
    tolerance = SAME_COMPILER if golden["libtpu"] == compiler else OTHER_COMPILER
    assert found["peak_bytes"] == pytest.approx(golden["peak_bytes"], rel=tolerance)
    assert found["temporary_bytes"] == pytest.approx(golden["temporary_bytes"], rel=tolerance)


def test_llama2_7b_fits_with_one_layer_gathered_at_a_time_and_no_logits():
    pytest.importorskip("libtpu")
    config = load_config(CONFIG.with_name("llama2_7b.py"), ["--config.pretrain.batch_rows=32"])
    assert config.pretrain.remat == "full"
    plan = plan_step(planned_shape(config), config.pretrain, config.packing, config.mesh, "v5e:4x4", predict=False)
    parameters = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 2 * 48512 * 4096 + 4096
    devices, rows = 16, 32
    assert plan.fits and plan.devices == plan.mesh["fsdp"] == devices and plan.exceeds_bytes == 0
    assert plan.parameter_bytes == pytest.approx(4 * parameters / devices, rel=0.02)
    assert plan.optimizer_bytes == pytest.approx(2 * plan.parameter_bytes, rel=0.02)
    assert plan.alias_bytes == pytest.approx(plan.output_bytes, rel=0.01)  # donated: nothing is held twice
    on_a_device = rows // devices
    inputs_of_layers = 32 * on_a_device * 2048 * 4096 * 2
    gradient = plan.parameter_bytes
    one_layer = (parameters // 32) * 2
    all_layers, logits = 32 * one_layer, on_a_device * 2048 * 48512 * 4
    assert plan.temporary_bytes < min(all_layers, gradient + inputs_of_layers + one_layer + 2 * logits)
    # 6 N per token and causal attention
    tokens = rows * 2048
    assert plan.model_flops * devices == pytest.approx(6 * 6.87e9 * tokens, rel=0.1)


def _write(key: str, values: dict) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    with atomic_file(GOLDEN) as temporary:
        temporary.write_text(json.dumps(dict(sorted((golden | {key: values}).items())), indent=1) + "\n")
