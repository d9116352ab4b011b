"""Arguments that commands share."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.core.config import load_config
from seallm_jax.core.errors import UsageError
from seallm_jax.core.paths import RunDirectory
from seallm_jax.core.progress import Progress


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions and examples; wide enough for the options."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=110)


def add_command(subparsers, name: str, *, help: str, description: str, example: str) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    return subparsers.add_parser(
        name,
        help=help,
        description=textwrap.fill(description, 108),
        epilog=f"example:\n  {example}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def add_stage_command(
    subparsers, stage: Stage, show: Callable[[dict[str, Any]], None], *, help: str, description: str, example: str
) -> argparse.ArgumentParser:
    """The command that runs one stage of a config and shows its outcome."""

    def command(options: argparse.Namespace) -> dict[str, Any]:
        outcome = execute(stage, make_context(options)).outcome
        show(outcome)
        return outcome

    parser = add_command(subparsers, stage.name, help=help, description=description, example=example)
    add_run_arguments(parser)
    parser.set_defaults(command=command)
    return parser


def add_run_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--config, --workdir and --config.key=value."""
    group = parser.add_argument_group("run")
    group.add_argument("--config", required=required, metavar="FILE", help="config file, as configs/quickstart.py")
    group.add_argument("--workdir", metavar="DIR", help="run directory (default: runs/NAME of the config)")
    group.add_argument("--config.KEY", dest="_override", metavar="VALUE", help="set a value of the config")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json=FILE, on a command and on all of its sub-commands."""
    with contextlib.suppress(argparse.ArgumentError):
        parser.add_argument("--json", metavar="FILE", help="write the result as JSON")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                add_json_argument(child)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--config.key=value` from the rest."""
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    return [argument for argument in arguments if not argument.startswith("--config.")], overrides


def make_context(options: argparse.Namespace) -> Context:
    """The run that the arguments name. Raises UsageError for a mistake in them."""
    if not options.config:
        raise UsageError("--config=FILE is missing, as --config=configs/quickstart.py")
    config = load_config(options.config, options.overrides)
    workdir = pathlib.Path(options.workdir or f"runs/{config.name}").expanduser()
    command = " ".join([f"--config={options.config}", f"--workdir={workdir}", *options.overrides])
    return Context(config, RunDirectory(workdir), Progress(), command)
