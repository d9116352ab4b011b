"""`seallm COMMAND`: parses the command line, runs one command, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

import seallm_jax
from seallm_jax.cli import (
    bench,
    convert,
    corpus,
    evaluate,
    expand,
    export,
    generate,
    inspect,
    merge,
    mixture,
    neurons,
    pack,
    plan,
    report,
    run,
    train,
    vocab,
)
from seallm_jax.cli.arguments import HelpFormatter, add_json_argument, split_overrides
from seallm_jax.core.errors import SeallmError, UsageError, report_error
from seallm_jax.core.paths import write_json

COMMANDS = (
    *(run, corpus, vocab, pack, mixture, train, evaluate, export, generate, report, inspect, plan),
    *(neurons, convert, merge, expand, bench),
)

DESCRIPTION = """\
Adapt an open language model to Southeast Asian and other low-resource languages.

A run is one config file and one directory. `seallm run` does every stage in order and the same command resumes after
any interruption; each stage is also a command of its own. Any value of the config can be set on the command line:

  seallm run --config=configs/quickstart.py --workdir=runs/mine --config.corpus.path=DIR
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code: 0 success, 1 failure, 2 wrong use, 75 stopped but resumable.

    A process that lost the others of its run ends with 69 and does not come back here.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.ERROR)
    arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    options.overrides = overrides
    try:
        result = options.command(options)
        if options.json:
            write_json(options.json, result)
        return 0
    except SeallmError as error:
        return report_error(error)
    except KeyboardInterrupt:
        print("seallm: interrupted; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 0
    except OSError as error:  # a full disk, a missing permission: what no room has a better word for
        print(f"seallm: error: {error}; what was written before is kept", file=sys.stderr)
        return SeallmError.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="seallm", description=DESCRIPTION, formatter_class=HelpFormatter, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"seallm_jax {seallm_jax.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for module in COMMANDS:
        add_json_argument(module.add_parser(subparsers))
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints a wrong command line as one line, like every other error."""

    def error(self, message: str):
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(UsageError.exit_code)


if __name__ == "__main__":
    sys.exit(main())
