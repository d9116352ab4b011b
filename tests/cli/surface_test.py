"""The command line: its surface, its help, its errors."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from seallm_jax.cli.main import _parser, main
from tests.cli.conftest import CONFIGS

# Adding is free. A name that disappears from here breaks somebody's script: deprecate it first.
SURFACE = {
    "run": {"--config", "--workdir", "--stages", "--json"},
    "corpus": {"--config", "--workdir", "--json"},
    "vocab": {"--config", "--workdir", "--json"},
    "vocab learn": {"--corpus", "--size", "--output", "--json"},
    "vocab extend": {"--tokenizer", "--corpus", "--size", "--output", "--protect", "--alpha", "--minimum_frequency"},
    "vocab merge": {"--tokenizer", "--models", "--corpus", "--size", "--output", "--method", "--json"},
    "vocab init": {"--model", "--tokenizer", "--initialization", "--output", "--json"},
    "vocab report": {"--tokenizer", "--corpus", "--base", "--parallel", "--json"},
    "pack": {"--config", "--workdir", "--json"},
    "mixture": {"--config", "--workdir", "--from-run", "--json"},
    "mixture search": {"--config", "--workdir", "--json"},
    "train": {
        "--config",
        "--workdir",
        "--stage",
        "--cluster",
        "--coordinator",
        "--num_processes",
        "--process_id",
        "--profile-steps",
    },
    "evaluate": {"--config", "--workdir", "--model", "--tasks", "--data", "--sequence_length", "--json"},
    "export": {"--config", "--workdir", "--json"},
    "generate": {"--config", "--workdir", "--model", "--prompt", "--prompts", "--output", "--chat", "--seed", "--json"},
    "report": {"--config", "--workdir", "--json"},
    "inspect": {"--config", "--workdir", "--source", "--rows", "--first", "--json"},
    "merge": {"--method", "--base", "--models", "--weights", "--density", "--lambda", "--output"},
    "neurons": {
        "--config",
        "--workdir",
        "--stage",
        "--languages",
        "--without",
        "--share",
        "--rows",
        "--kinds",
        "--output",
    },
    "expand": {"--model", "--method", "--blocks", "--noise", "--seed", "--output", "--json"},
    "bench vocab": {"--tokenizer", "--corpus", "--heldout", "--size", "--methods", "--donor", "--zawgyi", "--verify"},
    "convert": {"--source", "--output", "--dtype", "--shard-bytes", "--verify", "--json"},
    "bench": {"--json"},
    "bench convert": {"--size", "--devices", "--repeats", "--directory", "--cold", "--json"},
    "plan": {"--config", "--workdir", "--topology", "--stage", "--search", "--compiles", "--rows", "--positions"},
}


def commands(parser: argparse.ArgumentParser, prefix: str = "") -> dict[str, argparse.ArgumentParser]:
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found[f"{prefix}{name}"] = child
                found |= commands(child, f"{prefix}{name} ")
    return found


def test_surface_is_kept():
    found = commands(_parser())
    for name, options in SURFACE.items():
        assert name in found, f"command {name} has gone"
        assert options <= set(found[name]._option_string_actions), name


def test_every_command_has_an_example():
    for name, parser in commands(_parser()).items():
        assert "example:\n  seallm " + name in parser.format_help()


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom seallm_jax.cli.main import main\nassert main(['--help']) == 0\n"
        "heavy = {'jax', 'transformers', 'matplotlib', 'orbax'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage: seallm" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
        (["run"], 2, "required: --config"),
        (["run", "--config=none.py"], 2, "none.py does not exist"),
        (["run", "--config=CONFIG", "--config.corpus.pth=x"], 2, "did you mean config.corpus.path?"),
        (["run", "--config=CONFIG", "--stages=corpus,pretrian"], 2, "no stage 'pretrian'"),
        (["run", "--config=CONFIG", "--config.corpus.path=/nowhere"], 1, "corpus path /nowhere does not exist"),
        (["corpus", "--config=CONFIG", "--config.corpus.path=EMPTY"], 1, "has no .jsonl"),
        (["train", "--config=CONFIG", "--stage=pretrain"], 1, "stage 'vocab' has not finished"),
        (["mixture"], 2, "--config=FILE is missing"),
        (["generate"], 2, "--model=DIR"),
        (["generate", "--model=EMPTY", "--prompt=x"], 1, "config.json"),
        (["generate", "--model=EMPTY"], 2, "give a prompt"),
        (["evaluate", "--model=EMPTY", "--tasks", "mmlu"], 2, "task 'mmlu' is neither"),
        (["vocab"], 2, "or a sub-command"),
        (["plan", "--config=CONFIG", "--topology=v9:4x4"], 2, "topology 'v9:4x4' is not known"),
    ],
)
def test_mistakes_are_one_line(arguments, code, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    replace = {"CONFIG": str(CONFIGS / "smoke.py"), "EMPTY": str(tmp_path / "empty")}
    for old, new in replace.items():
        arguments = [argument.replace(old, new) for argument in arguments]
    if any(argument.startswith("--config=") for argument in arguments):
        arguments.append(f"--workdir={tmp_path / 'run'}")
    assert main(arguments) == code
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert message in last and last.startswith("seallm"), captured.err
    assert "Traceback" not in captured.err


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "seallm_jax", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("seallm_jax ")


def test_configs_load():
    from seallm_jax.core.config import load_config

    files = sorted(pathlib.Path(CONFIGS).glob("*.py"))
    assert len(files) >= 3
    for file in files:
        config = load_config(file)
        assert config.name == file.stem or f"{file.name}:" in file.read_text()  # a file for several models
        assert f"configs/{file.name}" in file.read_text() or "quickstart" in file.read_text()
