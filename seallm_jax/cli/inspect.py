"""`seallm inspect`: packed rows as the model sees them."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.text import Text

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import UsageError

SEGMENT_STYLES = ("cyan", "magenta", "yellow", "blue")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "inspect",
        help="packed rows as the model sees them: tokens, segments, labels",
        description="Prints rows of a source. Tokens of one document have one colour; what is learned is green, "
        "and underlined where there is no colour. Without --source: the list of sources.",
        example="seallm inspect --config=configs/quickstart.py --workdir=runs/mine --source=instructions/th --rows=2",
    )
    add_run_arguments(parser)
    parser.add_argument("--source", metavar="KIND/LL", help="as text/km, instructions/vi, preferences/th")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="rows to print (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="first row (default: %(default)s)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.data.row import NO_DOCUMENT
    from seallm_jax.data.shards import open_shards

    context = make_context(options)
    context.manifest("pack")
    readers = {reader.index.name: reader for reader in open_shards(context.directory.stage("pack"))}
    if not options.source:
        rows = [
            {
                "source": name,
                "rows": len(reader),
                "documents": reader.index.documents,
                "learned tokens": reader.index.tokens,
                "fill": f"{reader.index.fill:.1%}",
            }
            for name, reader in readers.items()
        ]
        print_table("Sources", rows)
        return {"sources": rows}
    if options.source not in readers:
        raise UsageError(f"no source {options.source!r}; there are {', '.join(readers)}")
    reader = readers[options.source]
    if not 0 <= options.first < len(reader):
        raise UsageError(f"--first is {options.first}; {options.source} has rows 0 to {len(reader) - 1}")
    tokenizer = stage_model(context, "vocab").load_tokenizer()
    console = Console(highlight=False, soft_wrap=True)
    shown = []
    for number in range(options.first, min(options.first + options.rows, len(reader))):
        pieces = reader[number].pieces()
        index = reader.index
        positions = sum(piece.positions for piece in pieces)
        console.print(f"row {number}: {len(pieces)} segments, {positions} of {reader.index.sequence_length} positions")
        for segment, piece in enumerate(pieces, start=1):
            learned = piece.learned if piece.learned is not None else [True] * piece.positions
            style = SEGMENT_STYLES[segment % len(SEGMENT_STYLES)]
            named, place = "the token that all see", ""
            if piece.document != NO_DOCUMENT:
                place = ":".join(map(str, index.place(piece.document))) if index.inputs else ""
                language = f" {index.languages[piece.language]}" if len(index.languages) > 1 else ""
                named = f"document {piece.document}{language}{place and f' ({place})'}"
            line = Text(f"  [{segment}] {named}: ", style="bold " + style)
            line.append(_show(tokenizer, int(piece.ids[0])), style=style)
            for token, is_learned in zip(piece.ids[1:], learned, strict=True):
                line.append("|", style="dim")
                line.append(_show(tokenizer, int(token)), style="green underline" if is_learned else style)
            console.print(line)
            shown.append(
                {
                    "row": number,
                    "segment": segment,
                    "document": piece.document,
                    "place": place,
                    "language": index.languages[piece.language],
                    "tokens": [tokenizer.piece(int(token)) for token in piece.ids],
                    "learned": [bool(flag) for flag in learned],
                }
            )
    return {"segments": shown}


def _show(tokenizer, index: int) -> str:
    try:
        text = tokenizer.piece_bytes(index).decode()
    except UnicodeDecodeError:  # part of a character
        text = tokenizer.piece(index)
    return text.replace(" ", "·").replace("\n", "⏎")
