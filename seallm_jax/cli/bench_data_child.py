"""One measurement of `seallm bench data`: `python -m seallm_jax.cli.bench_data_child TASK`, JSON in and out.

Memory is counted in anonymous pages (RssAnon): pages of files that are in the page cache are not the process's own.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from seallm_jax.core.languages import Languages
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.loader import TrainLoader
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.row_arrays import row_arrays
from seallm_jax.data.shards import ShardReader, ShardWriter, open_shards, rows_file

PREFETCH = 8  # batches
GROUP = 512  # rows
ENOUGH = 300_000_000  # tokens for each second: more than are read
WARM_UP = 0.2  # of the time, before anything is counted


def main() -> None:
    """Does the task that the command line names and prints what it found."""
    request = json.load(sys.stdin)
    if sys.argv[1] == "make":
        make_rows(request)
        print("{}")
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    loaders: dict[str, Callable[[dict[str, Any]], Iterator[int]]] = {
        "seallm": read_batches,
        "grain": read_grain,
        "datasets": read_datasets,
        "rows": lambda request: read_rows(request, 1),
        "groups": lambda request: read_rows(request, GROUP),
    }
    print(json.dumps(measure(loaders[sys.argv[1]](request), request["seconds"])))


def make_rows(request: dict[str, Any]) -> None:
    """Writes packed rows, and the same documents for loaders that pack them or keep them otherwise."""
    from array_record.python.array_record_module import ArrayRecordWriter

    root, length = pathlib.Path(request["directory"]), request["sequence_length"]
    generator = np.random.default_rng(0)
    for source in range(request["sources"]):
        directory = root / "tokens" / "text" / f"l{source}"
        documents = root / "documents" / f"l{source}.array_record"
        documents.parent.mkdir(exist_ok=True)
        loose = ArrayRecordWriter(str(documents), "group_size:1,uncompressed")
        rows = []
        with ShardWriter(directory) as writer:
            for number in range(request["rows"] // request["sources"]):
                pieces = [
                    Piece(generator.integers(0, request["vocabulary"], size + 1, dtype=np.int32), document=number)
                    for size in _document_lengths(generator, length)
                ]
                rows.append(PackedRow.of(pieces))
                writer.write(rows[-1])
                for piece in pieces:
                    loose.write(piece.ids[:-1].astype(_id_dtype(request)).tobytes())
            writer.finish(
                kind="text",
                language=directory.name,
                languages=(directory.name,),
                sequence_length=length,
                tokenizer_digest="",
                inputs_digest="",
                documents=len(rows),
            )
        loose.close()
        if "datasets" in request["loaders"]:
            _save_dataset(rows, length, root / "datasets" / directory.name)


def measure(batches: Iterator[int], seconds: float) -> dict[str, Any]:
    """Consumes batches, each given as its number of tokens; memory is looked at ten times."""
    next(batches)  # opens the files and starts the threads
    begin = time.perf_counter() + WARM_UP * seconds
    while time.perf_counter() < begin:
        next(batches)
    start, processor, tokens = time.perf_counter(), time.process_time(), 0
    megabytes: list[float] = []
    while (elapsed := time.perf_counter() - start) < seconds:
        if elapsed >= len(megabytes) * seconds / 10:
            megabytes.append(_anonymous_bytes() / 1e6)
        tokens += next(batches)
    processor = time.process_time() - processor
    return {
        "tokens_per_processor_second": tokens / processor,
        "tokens_per_second": tokens / (time.perf_counter() - start),
        "megabytes": [*megabytes, _anonymous_bytes() / 1e6],
    }


def read_batches(request: dict[str, Any]) -> Iterator[int]:
    """Our loader, as training uses it."""
    readers = _readers(request)
    tokens = int(request["seconds"] * ENOUGH) + request["rows"] * request["sequence_length"]
    stage = StageConfig(tokens=tokens, mixture="temperature", alpha=0.3)
    curriculum = Curriculum.compile(
        (stage,),
        [reader.source() for reader in readers],
        sequence_length=request["sequence_length"],
        batch_rows=request["batch_rows"],
        seed=0,
    )
    languages = Languages(tuple(reader.index.language for reader in readers))
    loader = TrainLoader(curriculum, readers, languages, threads=request["threads"], prefetch=PREFETCH)
    for batch in loader.batches():
        yield batch.tokens.size


def read_rows(request: dict[str, Any], count: int) -> Iterator[int]:
    """ArrayRecord alone: rows of one source after another in random order, `count` a call."""
    from array_record.python.array_record_module import ArrayRecordReader

    options = "max_parallelism:0,readahead_buffer_size:0"
    readers = [ArrayRecordReader(str(rows_file(r.directory)), options=options) for r in _readers(request)]
    generator = np.random.default_rng(0)
    for reader in itertools.cycle(readers):
        order = generator.permutation(reader.num_records()).tolist()
        for start in range(0, len(order), count):
            yield len(reader.read(order[start : start + count])) * request["sequence_length"]


def read_grain(request: dict[str, Any]) -> Iterator[int]:
    """Grain: shuffled documents of every source, mixed, packed first-fit, batched."""
    import grain
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    sources = [
        grain.MapDataset.source(ArrayRecordDataSource(str(path)))
        .shuffle(seed=0)
        .repeat()
        .map(lambda record: {"tokens": np.frombuffer(record, _id_dtype(request)).astype(np.int32)})
        for path in sorted((pathlib.Path(request["directory"]) / "documents").iterdir())
    ]
    mixed = grain.MapDataset.mix(sources, weights=[1.0] * len(sources))
    documents = mixed.to_iter_dataset(
        grain.ReadOptions(num_threads=request["threads"], prefetch_buffer_size=PREFETCH * request["batch_rows"])
    )
    packed = grain.experimental.FirstFitPackIterDataset(
        documents, length_struct={"tokens": request["sequence_length"]}, num_packing_bins=request["batch_rows"]
    )
    for batch in packed.batch(request["batch_rows"]):
        yield int((batch["tokens_segment_ids"] != 0).sum())


def read_datasets(request: dict[str, Any]) -> Iterator[int]:
    """Hugging Face datasets: rows of every source interleaved at random, batched as NumPy arrays."""
    import datasets

    paths = sorted((pathlib.Path(request["directory"]) / "datasets").iterdir())
    sources = [datasets.load_from_disk(str(path)).shuffle(seed=0) for path in paths]
    for seed in itertools.count():
        mixed = datasets.interleave_datasets(
            sources, probabilities=[1 / len(sources)] * len(sources), seed=seed, stopping_strategy="all_exhausted"
        )
        for batch in mixed.with_format("numpy").iter(request["batch_rows"], drop_last_batch=True):
            yield batch["tokens"].size


def _save_dataset(rows: list[PackedRow], length: int, path: pathlib.Path) -> None:
    import datasets
    import pyarrow as pa

    fields = row_arrays(rows, length, [np.zeros(1, np.int32)] * len(rows))
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), length) for name, values in fields.items()
    }
    datasets.disable_progress_bars()
    datasets.Dataset(pa.table(columns)).save_to_disk(str(path))


def _document_lengths(generator: np.random.Generator, total: int) -> Iterator[int]:
    """Lengths of documents that fill a row: log-normal, 245 tokens in the middle."""
    while total:
        size = min(total, int(generator.lognormal(5.5, 1.0)) + 1)
        yield size
        total -= size


def _id_dtype(request: dict[str, Any]) -> str:
    return "<u2" if request["vocabulary"] <= 1 << 16 else "<u4"


def _readers(request: dict[str, Any]) -> list[ShardReader]:
    return open_shards(pathlib.Path(request["directory"]) / "tokens")


def _anonymous_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
