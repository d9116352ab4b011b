"""`seallm bench decontamination`: speed, recall and precision of the search for evaluation texts in documents."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.synthetic_text import SyntheticText
from seallm_jax.cli.tables import print_table
from seallm_jax.core.corpus_config import DecontaminationConfig
from seallm_jax.core.errors import UsageError
from seallm_jax.core.progress import Progress

CHARACTERS = (500, 1500)
_EVALUATION_CHARACTERS = (40, 400)
_PEER_SHARE = 10  # every so many documents go to the peer, too
_MARKS = (" ", "  ", "\n", ", ", "... ", " — ", "\u200b")


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "decontamination",
        help="find planted evaluation texts in synthetic documents, beside sets of n-grams",
        description="Plants evaluation texts in documents: verbatim, with other case, spaces and punctuation, in part; "
        "and texts that are only similar, which must not be found. Measures what share of each is found, and the speed "
        "on documents without any, beside the plain way: a Python set of all n-grams.",
        example="seallm bench decontamination --texts=20000 --documents=50000",
    )
    parser.add_argument("--texts", type=int, default=5000, metavar="N", help="evaluation texts (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=20_000, metavar="N", help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.corpus.decontamination import Decontaminator
    from seallm_jax.corpus.evaluation_texts import EvaluationText

    if options.texts < 1 or options.documents < 1:
        raise UsageError("give --texts=1 or more and --documents=1 or more")
    config = DecontaminationConfig()
    source = SyntheticText(seed=2)
    texts = source.texts(options.texts, _EVALUATION_CHARACTERS)
    documents = source.texts(options.documents, CHARACTERS)
    start = time.process_time()
    decontaminator = Decontaminator([EvaluationText(text, str(n)) for n, text in enumerate(texts)], config)
    index_seconds = time.process_time() - start
    planted = _planted(texts, documents, config, source)
    table = []
    with Progress().task("decontamination (cases)", total=len(planted)) as advance:
        for name, (should, cases) in planted.items():
            found = sum(decontaminator.match(case) is not None for case in cases)
            table.append({"case": name, "documents": len(cases), "found": found, "should be": should and len(cases)})
            advance()
    print_table(f"{len(texts):,} evaluation texts; index built in {index_seconds:.2f} processor seconds", table)
    some = documents[::_PEER_SHARE]
    speeds = [
        {"": "seallm", **_speed(lambda text: decontaminator.match(text) is not None, documents)},
        {"": "set of n-grams", **_speed(_plain(texts, config), some)},
    ]
    print_table("Speed on documents without evaluation texts", speeds)
    return {"texts": len(texts), "index_seconds": index_seconds, "cases": table, "speed": speeds}


def _planted(
    texts: Sequence[str], documents: Sequence[str], config: DecontaminationConfig, source: SyntheticText
) -> dict[str, tuple[int, list[str]]]:
    """Name of a case -> (whether it should be found, documents)."""
    random = np.random.default_rng(3)
    letters = ["".join(filter(str.isalnum, text)) for text in texts]
    long = [text for text, only in zip(texts, letters, strict=True) if len(only) >= config.ngram + 30]
    short = [text for text, only in zip(texts, letters, strict=True) if config.minimum <= len(only) < config.ngram]

    def embed(part: str) -> str:
        document = documents[int(random.integers(len(documents)))]
        cut = document.find(" ", int(random.integers(len(document) // 2)))
        # a digit on either side, so that no letter of the document lengthens the part by chance
        return f"{document[:cut]} 0 {part} 0 {document[cut:]}"

    def disturb(text: str) -> str:
        marks = random.integers(len(_MARKS), size=len(text))
        changed = (
            _MARKS[mark] if c == " " else c.upper() if mark % 2 else c for c, mark in zip(text, marks, strict=True)
        )
        return "".join(changed)

    def run(text: str, length: int) -> str:
        start = int(random.integers(20))
        only = "".join(filter(str.isalnum, text))
        return only[start : start + length]

    def misspell(text: str) -> str:
        every = config.ngram - 10
        return "".join("0" if place % every == every // 2 else c for place, c in enumerate(filter(str.isalnum, text)))

    return {
        "verbatim": (1, [embed(text) for text in long]),
        "other case, spaces, punctuation": (1, [embed(disturb(text)) for text in long]),
        f"a run of {config.ngram} letters": (1, [embed(run(text, config.ngram)) for text in long]),
        "short text, whole": (1, [embed(disturb(text)) for text in short]),
        f"a run of {config.ngram - 1} letters": (0, [embed(run(text, config.ngram - 1)) for text in long]),
        f"a letter wrong in every {config.ngram - 10}": (0, [embed(misspell(text)) for text in long]),
        "short text without its first letter": (0, [embed(text[1:]) for text in short]),
        "other documents": (0, list(documents)),
    }


def _plain(texts: Sequence[str], config: DecontaminationConfig) -> Callable[[str], bool]:
    """The plain way: all n-grams of the letters, in a set."""

    def ngrams(text: str) -> set[str]:
        only = "".join(filter(str.isalnum, text)).casefold()
        return {only[start : start + config.ngram] for start in range(len(only) - config.ngram + 1)}

    wanted = set().union(*map(ngrams, texts))
    return lambda text: not wanted.isdisjoint(ngrams(text))


def _speed(found: Callable[[str], bool], documents: Sequence[str]) -> dict[str, Any]:
    start = time.process_time()
    number = sum(map(found, documents))
    seconds = time.process_time() - start
    megabytes = sum(map(len, documents)) / 1e6
    return {
        "documents": len(documents),
        "found": number,
        "MB per processor second": round(megabytes / max(seconds, 1e-9), 1),
    }
