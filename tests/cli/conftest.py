"""One small run from raw text to the report, shared by all tests of the command line."""

import pathlib

import pytest

from seallm_jax.cli.main import main

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "configs"
SMALL = (
    "--config.base.model.hidden_size=64",
    "--config.base.model.intermediate_size=128",
    "--config.base.model.num_layers=2",
    "--config.base.model.num_heads=4",
    "--config.base.model.num_key_value_heads=2",
    "--config.base.model.head_size=16",
    "--config.base.train.curriculum.0.tokens=65536",
    "--config.pretrain.curriculum.0.tokens=32768",
    "--config.pretrain.curriculum.1.tokens=32768",
    "--config.pretrain.curriculum.2.tokens=32768",
    "--config.pretrain.checkpoint_every=4",
    "--config.vocab.size=1500",
    "--config.vocab.minimum_frequency=2",
    "--config.evaluation.maximum_documents=1",
    # as hybrid's: a step each, and one program
    "--config.sft.optimizer.learning_rate=1e-3",
    # one device is faster than eight emulated ones
    "--config.mesh.data=8",
    "--config.mesh.fsdp=1",
)


def arguments(command: str, workdir: pathlib.Path, *more: str) -> list[str]:
    """Command line of a command on the small run."""
    return [command, f"--config={CONFIGS / 'smoke.py'}", f"--workdir={workdir}", *SMALL, *more]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
    """Run directory with all stages done."""
    workdir = tmp_path_factory.mktemp("run") / "work"
    assert main(arguments("run", workdir, f"--json={workdir}.json")) == 0
    return workdir
