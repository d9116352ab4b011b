"""`seallm bench corpus`: what each step of text cleaning costs, on given text."""

from __future__ import annotations

import argparse
import collections
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.bench_corpus_pipeline import time_pipeline
from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress

Step = Callable[[str, str], Any]
TOGETHER = "together"
MAXIMUM_BYTES = 50_000_000  # read of the corpus


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "corpus",
        help="megabytes a CPU second of repair, identification, filters, masking, quality",
        description="Cleans the documents of a corpus step by step, in memory, on one core, and prints the speed of "
        "each step and of all together by language, with what was changed or dropped. The quality classifier is "
        "trained on the corpus itself, half of it against the other: only its speed is measured.",
        example="seallm bench corpus --corpus DIR",
    )
    parser.add_argument("--corpus", nargs="+", required=True, metavar="PATH", help="documents")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="whole stage: read the corpus N times over")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    documents = _documents(options.corpus)
    steps = _steps(documents)
    rows = []
    totals: dict[str, Any] = collections.Counter()
    with Progress().task("cleaning", total=sum(map(len, documents.values()))) as advance:
        for language, texts in documents.items():
            counts, seconds = _measure(texts, language, steps)
            counts |= {"MB": sum(len(text.encode()) for text in texts) / 1e6, "documents": len(texts)}
            totals.update(counts | seconds)
            rows.append(_row(language, counts, seconds))
            advance(len(texts), language)
    seconds = {name: totals[name] for name in (*steps, TOGETHER)}
    rows.append(_row("all", {key: totals[key] for key in counts}, seconds))
    print_table("Cleaning, MB a CPU second", rows)
    speeds = {row["language"]: {name: row[name] for name in seconds} for row in rows}
    stage = time_pipeline(options.corpus, [text for texts in documents.values() for text in texts], options.copies)
    print_table("The whole corpus stage, everything on, as one task", [stage])
    return {
        "mb_per_cpu_second": speeds,
        "documents": totals["documents"],
        "dropped": totals["dropped"],
        "stage": stage,
    }


def _measure(texts: list[str], language: str, steps: Mapping[str, Step]) -> tuple[dict[str, float], dict[str, float]]:
    """What was changed, and CPU seconds: each step over all texts, then all steps over one text after the other."""
    seconds = {}
    results: dict[str, list[Any]] = {}
    for name, step in steps.items():
        inputs = texts if name == "repair" else results["repair"]
        start = time.process_time()
        results[name] = [step(text, language) for text in inputs]
        seconds[name] = time.process_time() - start
    start = time.process_time()
    for text in texts:
        for name, step in steps.items():
            if name == "repair":
                text = step(text, language)
            else:
                step(text, language)
    seconds[TOGETHER] = time.process_time() - start
    counts = {
        "repaired": sum(map(operator.ne, texts, results["repair"])),
        "dropped": sum(reason is not None for reason in results["filters"]),
        "masked": sum(bool(found) for _, found in results["masking"]),
    }
    return counts, seconds


def _row(language: str, counts: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, Any]:
    speeds = {name: counts["MB"] / max(1e-9, spent) for name, spent in seconds.items()}
    return {"language": language, "MB": counts["MB"], "documents": counts["documents"], **speeds} | {
        name: counts[name] for name in ("repaired", "dropped", "masked")
    }


def _steps(documents: dict[str, list[str]]) -> dict[str, Step]:
    """Each step takes a text and its language; all are called once, so that no table is built while they are timed."""
    from seallm_jax.corpus.filters import TextFilter
    from seallm_jax.corpus.language import LanguageIdentifier
    from seallm_jax.corpus.personal_data import mask_personal_data
    from seallm_jax.corpus.quality import MINIMUM_EXAMPLES, QualityClassifier
    from seallm_jax.corpus.repair import repair_text

    identifier, text_filter = LanguageIdentifier(), TextFilter()
    steps: dict[str, Step] = {
        "repair": repair_text,
        "identification": lambda text, language: identifier.identify(text),
        "filters": text_filter.reason,
        "masking": lambda text, language: mask_personal_data(text),
    }
    texts = [text for group in documents.values() for text in group[:50]]
    if len(texts) >= 4 * MINIMUM_EXAMPLES:
        quality = QualityClassifier.train(texts[::2], texts[1::2])
        steps["quality"] = lambda text, language: quality.score(text)
    identifier.identify("dans le jardin il y a des fleurs")  # a language of the fallback, whose model is read now
    for step in steps.values():
        for language, group in documents.items():
            step(group[0], language)
    return steps


def _documents(paths: list[str]) -> dict[str, list[str]]:
    from seallm_jax.core.corpus_config import CorpusConfig
    from seallm_jax.core.languages import language_code
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.reader import find_files, read_documents

    documents: dict[str, list[str]] = {}
    left = MAXIMUM_BYTES
    for path in paths:
        for file in find_files(path):
            for record in read_documents(file, CorpusConfig()):
                if isinstance(record, Document) and record.text and left > 0:
                    left -= record.num_bytes
                    documents.setdefault(language_code(record.language), []).append(record.text)
    if not documents:
        raise SeallmError(f"no text in {', '.join(paths)}")
    return documents
