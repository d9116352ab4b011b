"""`seallm bench language`: language identification on labelled text, beside py3langid."""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.progress import Progress

if TYPE_CHECKING:
    from seallm_jax.corpus.confusion import ConfusionTable

SHORTEST_LINE = 20  # characters; shorter lines are names and numbers
CONFUSABLE = ("id", "ms", "jv", "su", "min", "ban")
LEVELS = ("document", "line", "sentence")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "language",
        help="confusion table of language identification, beside py3langid",
        description="Identifies the language of labelled documents, of their lines, and of aligned sentences, and "
        "prints which language was taken for which. py3langid alone does the same in the same run. Precision counts "
        "every language alike, however much text of it there is.",
        example="seallm bench language --corpus DIR --parallel FILE.jsonl",
    )
    parser.add_argument("--corpus", nargs="+", default=[], metavar="PATH", help="labelled documents")
    parser.add_argument("--parallel", nargs="+", default=[], metavar="PATH", help="aligned sentences")
    parser.add_argument("--languages", nargs="+", default=[], metavar="LL", help="only these (default: all)")
    parser.add_argument("--model", default="", metavar="FILE", help="a fastText model instead of our word lists")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    import py3langid

    from seallm_jax.corpus.confusion import ConfusionTable
    from seallm_jax.corpus.language import LanguageIdentifier

    if not options.corpus and not options.parallel:
        raise UsageError("give --corpus PATH or --parallel PATH")
    ours: Callable[[str], str] = lambda text: identifier.identify(text)[0]  # noqa: E731
    identifier = LanguageIdentifier(options.model)
    methods = {"seallm": ours, "py3langid": lambda text: py3langid.classify(text)[0]}
    tables = {(level, name): ConfusionTable() for level in LEVELS for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    num_bytes = 0
    with Progress().task("identifying", total=None) as advance:
        for level, language, text in _texts(options):
            num_bytes += len(text.encode())
            for name, identify in methods.items():
                start = time.process_time()
                found = identify(text)
                seconds[name] += time.process_time() - start
                tables[level, name].add(language, found)
            advance(1, language)
    result: dict[str, Any] = {}
    for level in LEVELS:
        pair = {name: tables[level, name] for name in methods}
        if pair["seallm"].languages:
            print_table(f"Taken for (by {level})", pair["seallm"].rows())
            print_table(f"Recall and precision by {level}", _summary(pair))
            result[level] = {
                name: {
                    code: {"texts": table.total(code), "recall": table.recall(code), "precision": table.precision(code)}
                    for code in table.languages
                }
                for name, table in pair.items()
            }
    if not result:
        raise SeallmError("there is no labelled text of these languages")
    speed = {name: num_bytes / 1e6 / max(1e-9, spent) for name, spent in seconds.items()}
    print_table("Speed", [{f"{name}, MB/CPU s": value for name, value in speed.items()}])
    return result | {"mb_per_cpu_second": speed}


def _summary(tables: Mapping[str, ConfusionTable]) -> list[dict[str, Any]]:
    """A row a language and one for the group that is easily confused, as far as it is there."""
    languages = tables["seallm"].languages
    rows = []
    for name, codes in [(code, [code]) for code in languages] + [("mean of " + " ".join(CONFUSABLE), CONFUSABLE)]:
        present = [code for code in codes if code in languages]
        row: dict[str, Any] = {"language": name, "texts": sum(map(tables["seallm"].total, present))}
        for method, table in tables.items():
            recalls = [table.recall(code) for code in present]
            precisions = [table.precision(code) or 0.0 for code in present]
            row[f"{method} recall"] = f"{sum(recalls) / max(1, len(recalls)):.1%}"
            row[f"{method} precision"] = f"{sum(precisions) / max(1, len(precisions)):.1%}"
        if present:
            rows.append(row)
    return rows


def _texts(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """(level, language, text), repaired."""
    from seallm_jax.core.corpus_config import CorpusConfig
    from seallm_jax.core.languages import language_code
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.parallel import read_parallel
    from seallm_jax.corpus.reader import find_files, read_documents
    from seallm_jax.corpus.repair import repair_text

    wanted = set(options.languages)
    for path in options.corpus:
        for file in find_files(path):
            for record in read_documents(file, CorpusConfig()):
                language = language_code(record.language)
                if not isinstance(record, Document) or not language or wanted and language not in wanted:
                    continue
                text = repair_text(record.text, language)
                yield "document", language, text
                lines = text.split("\n")
                yield from (("line", language, line) for line in lines if len(line) >= SHORTEST_LINE)
    for path in options.parallel:
        for code, sentences in read_parallel(pathlib.Path(path)).items():
            if not wanted or code in wanted:
                yield from (("sentence", code, sentence) for sentence in sentences if sentence)
