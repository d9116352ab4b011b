"""`seallm bench duplicates`: speed, memory, recall and precision of the search for duplicates."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.bench_duplicates_peers import PEERS
from seallm_jax.cli.synthetic_text import SyntheticText, jaccard
from seallm_jax.cli.tables import print_table
from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.errors import UsageError
from seallm_jax.core.progress import Progress

CHARACTERS = (500, 1500)
_BLOCK = 200  # documents that are made at once
_MEASURED_PAIRS = 20_000  # planted pairs whose exact similarity is computed
_SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "duplicates",
        help="find planted duplicates among synthetic documents, beside datasketch and rensa",
        description="Makes documents of 500 to 1,500 characters, one in ten of them a copy of an earlier one, verbatim "
        "or with some words changed. Measures processor time and memory of the search, and what share of the copies it "
        "finds by their exact similarity. The peers do a smaller number of the same documents.",
        example="seallm bench duplicates --documents=1000000",
    )
    parser.add_argument("--documents", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--peer-documents",
        type=int,
        default=10_000,
        metavar="N",
        help="for the peers; 0 for none (default: %(default)s)",
    )
    parser.add_argument("--units", type=int, default=8, metavar="N", help="signature files (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.8, metavar="J", help="similarity (default: %(default)s)")
    parser.add_argument(
        "--directory", metavar="DIR", help="where the files go for the while (default: a temporary one)"
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.documents < 100 or not 0 < options.threshold <= 1 or options.units < 1:
        raise UsageError("give --documents=100 or more, --units=1 or more and --threshold in (0, 1]")
    config = DuplicatesConfig(threshold=options.threshold)
    with tempfile.TemporaryDirectory(prefix="seallm-bench-", dir=options.directory) as directory:
        result = _measure(options, config, pathlib.Path(directory), Progress())
    print_table(
        f"{result['documents']:,} documents, {result['megabytes']:,.0f} MB of text",
        [{"phase": name, **values} for name, values in result["phases"].items()],
    )
    dropped, wrong = result["dropped"], result["originals_dropped"]
    print(f"dropped {dropped:,}, of which {wrong:,} no copies; peak memory {result['peak_gigabytes']:.2f} GB\n")
    print_table(
        f"Changed copies found, by exact similarity of character {config.ngram}-grams; threshold {config.threshold}",
        result["recall"],
    )
    if options.peer_documents:
        result["peers"] = _peers(options, config)
        print_table(f"Beside others, {options.peer_documents:,} documents in this process", result["peers"])
    return result


@dataclasses.dataclass
class _Block:
    """Texts, whether each is a copy, and the exact similarity of some changed copies by place."""

    texts: list[str]
    copy: list[bool]
    similarity: dict[int, float]


def _blocks(count: int, ngram: int) -> Iterator[_Block]:
    source = SyntheticText(seed=1)
    left = _MEASURED_PAIRS
    originals: list[str] = []
    for start in range(0, count, _BLOCK):
        texts = source.texts(min(_BLOCK, count - start), CHARACTERS)
        block = _Block(texts, [False] * len(texts), {})
        fresh = []
        for place in range(len(texts)):
            if place % 10 or not originals:
                fresh.append(texts[place])
                continue
            original = originals[place % len(originals)]
            exact = place % 50 == 0
            texts[place] = original.upper() if exact else source.changed(original, source.number(0, 0.12))
            block.copy[place] = True
            if not exact and left:
                left -= 1
                block.similarity[place] = jaccard(original, texts[place], ngram)
        originals = fresh
        yield block


def _measure(
    options: argparse.Namespace, config: DuplicatesConfig, directory: pathlib.Path, progress: Progress
) -> dict[str, Any]:
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.duplicate_clusters import cluster_duplicates
    from seallm_jax.corpus.duplicate_signatures import DuplicateSignatures

    paths = [directory / f"{unit:05d}.signatures" for unit in range(options.units)]
    copies: list[bool] = []
    similarity: dict[int, float] = {}
    blocks = _blocks(options.documents, config.ngram)
    per_unit = -(-options.documents // _BLOCK // options.units) or 1
    num_bytes = 0
    signing = _Clock()
    with progress.task("signatures (documents)", total=options.documents) as advance:
        for path in paths:
            with DuplicateSignatures(path, config) as signatures:
                for _, block in zip(range(per_unit), blocks, strict=False):
                    similarity |= {len(copies) + place: value for place, value in block.similarity.items()}
                    copies += block.copy
                    num_bytes += sum(map(len, block.texts))
                    with signing:
                        for text in block.texts:
                            signatures.add(Document(text, "", ""))
                    advance(len(block.texts))
    clustering = _Clock()
    with clustering:
        cluster_duplicates(paths, directory / "decisions", config, progress=progress)
    codes = b"".join((directory / "decisions" / path.name).read_bytes() for path in paths)
    dropped, copy = np.frombuffer(codes, np.uint8) > 0, np.array(copies)
    megabytes = num_bytes / 1e6
    clocks = {"signatures": signing, "groups": clustering, "both": signing + clustering}
    return {
        "documents": len(copies),
        "megabytes": megabytes,
        "phases": {name: clock.row(megabytes) for name, clock in clocks.items()},
        "signature_megabytes": sum(path.stat().st_size for path in paths) / 1e6,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "dropped": int(dropped.sum()),
        "originals_dropped": int((dropped & ~copy).sum()),
        "recall": _recall(similarity, dropped, config),
    }


class _Clock:
    """Adds up the processor and wall time of `with` blocks."""

    def __init__(self, processor: float = 0.0, wall: float = 0.0):
        self.processor, self.wall = processor, wall

    def __enter__(self) -> _Clock:
        self.processor -= time.process_time()
        self.wall -= time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.processor += time.process_time()
        self.wall += time.perf_counter()

    def __add__(self, other: _Clock) -> _Clock:
        return _Clock(self.processor + other.processor, self.wall + other.wall)

    def row(self, megabytes: float) -> dict[str, float]:
        return {
            "processor s": round(self.processor, 2),
            "wall s": round(self.wall, 2),
            "MB per processor second": round(megabytes / self.processor, 1),
        }


def _recall(similarity: dict[int, float], dropped: np.ndarray, config: DuplicatesConfig) -> list[dict[str, Any]]:
    """Share of the changed copies that was dropped, by similarity, beside what independent minima would give."""
    from seallm_jax.corpus.minhash import choose_bands

    bands, rows = choose_bands(config.threshold, config.num_hashes)
    places = np.array(list(similarity), int)
    values = np.array(list(similarity.values()))
    found = dropped[places]
    table = []
    for low, high in zip(_SIMILARITIES, _SIMILARITIES[1:], strict=False):
        inside = (values >= low) & (values < high if high < 1 else values <= 1)
        if not inside.any():
            continue
        drawn = np.resize(values[inside], 4000)[:, None]
        agree: np.ndarray = np.random.default_rng(0).random((4000, config.num_hashes)) < drawn
        banded = np.any(np.all(agree[:, : bands * rows].reshape(-1, bands, rows), axis=2), axis=1)
        expected = (banded & (agree.mean(axis=1) >= config.threshold)).mean()
        share = round(float(found[inside].mean()), 4)
        columns = {"pairs": int(inside.sum()), "found": share, "expected": round(float(expected), 4)}
        table.append({"similarity": f"{low:.2f} to {high:.2f}", **columns})
    return table


def _peers(options: argparse.Namespace, config: DuplicatesConfig) -> list[dict[str, Any]]:
    """The same documents through each implementation; a peer that is not installed says so."""
    texts: list[str] = []
    copies: list[bool] = []
    similarity: dict[int, float] = {}
    for block in _blocks(options.peer_documents, config.ngram):
        similarity |= {len(texts) + place: value for place, value in block.similarity.items()}
        texts += block.texts
        copies += block.copy
    megabytes = sum(map(len, texts)) / 1e6
    near = [place for place, value in similarity.items() if value >= config.threshold + 0.05]
    table: list[dict[str, Any]] = []
    for name, find in PEERS.items():
        clock = _Clock()
        try:
            with clock:
                dropped = find(texts, config)
        except ImportError as error:
            table.append({"": name, "MB per processor second": None, "note": f"pip install {error.name}"})
            continue
        copy = np.array(copies)
        table.append(
            {
                "": name,
                **clock.row(megabytes),
                f"found from {config.threshold + 0.05:.2f}": round(float(dropped[near].mean()), 4),
                "no copies": int((dropped & ~copy).sum()),
            }
        )
    return table
