"""Packs running text into shards, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import PackingConfig
from seallm_jax.core.worker_pool import WorkerKilledError, WorkerPool
from seallm_jax.data.pack_summary import Summary, finished_shard, forget_others, inputs_digest, summary_row
from seallm_jax.data.packing import split_ids
from seallm_jax.data.row import Piece
from seallm_jax.data.row_packer import RowPacker
from seallm_jax.data.shard_index import INDEX_FILE, ShardIndex, ShardPart, finish_shard
from seallm_jax.data.shards import rows_file
from seallm_jax.data.text import TEXTS_AT_ONCE, text_ids
from seallm_jax.data.text_part import PART_BYTES, TextPart, TextPlan, plan_parts, read_part
from seallm_jax.data.text_source import TextSource
from seallm_jax.tokenization.tokenizer import Tokenizer

SMALL = 1 << 26  # bytes of text that are packed before other processes have started


@dataclasses.dataclass(frozen=True)
class _Job:
    """One part of a source, to be written to `directory`."""

    source: TextSource
    part: TextPart
    directory: pathlib.Path
    packing: PackingConfig
    seed: int
    inputs_digest: str

    @property
    def record(self) -> pathlib.Path:
        """The file that says that the part is finished."""
        return self.directory / f"part-{self.part.number:05d}.json"

    def finished(self) -> ShardPart | None:
        """The part, where an earlier run has finished it."""
        if not self.record.exists():
            return None
        record = read_json(self.record)
        path = rows_file(self.directory, self.part.number)
        if record.get("inputs_digest") != self.inputs_digest or not path.exists():
            return None
        part = ShardPart(**record["part"])
        return part if path.stat().st_size == part.bytes else None


def pack_text(
    sources: Sequence[TextSource],
    tokenizer: Tokenizer,
    output: pathlib.Path,
    packing: PackingConfig,
    *,
    seed: int,
    progress: Progress,
    part_bytes: int = PART_BYTES,
) -> Summary:
    """Packs running text: each document is `begin_id` (BOS), text, `end_id` (EOS).

    A document longer than a row is cut, and so are a few where rows would not be 99.5 % full; every target is kept. The
    rows do not depend on the number of processes. Shards, and parts of shards, that are there already and were made
    from the same input are left alone.

    Args:
      sources: what becomes a shard each.
      tokenizer: makes the ids.
      output: the tokens directory; shards go to output/<kind>/<name>.
      packing: length of the rows, mode, dropout and number of processes.
      seed: of the dropout.
      progress: a task.
      part_bytes: text of one file of rows, about.

    Returns:
      One record for each source: source, documents, rows, tokens, fill, truncated (0), dropped (reason -> count).

    Raises:
      SeallmError: a missing, changed or damaged input file, a full disk, or a process that was killed.
    """
    for kind in {*(source.kind for source in sources), *_kinds_of_text(output)}:
        forget_others(output / kind, {source.name for source in sources if source.kind == kind})
    plans = [plan_parts(source, part_bytes=part_bytes) for source in sources]
    inputs = [_digest(source, plan, tokenizer, packing, seed) for source, plan in zip(sources, plans, strict=True)]
    directories = [output / source.kind / source.name for source in sources]
    indices = [finished_shard(directory, digest) for directory, digest in zip(directories, inputs, strict=True)]
    jobs = [
        _Job(source, part, directory, packing, seed, digest)
        for source, plan, directory, digest, index in zip(sources, plans, directories, inputs, indices, strict=True)
        for part in (plan.parts if index is None else ())
    ]
    waiting = [job for job in jobs if job.finished() is None]
    with progress.task("packing text", total=sum(job.part.lines for job in waiting)) as advance:
        _run(waiting, tokenizer, packing.workers, advance)
    for number, (source, plan, directory, digest) in enumerate(zip(sources, plans, directories, inputs, strict=True)):
        if indices[number] is None:
            own = [job for job in jobs if job.directory == directory]
            indices[number] = _finish(own, source, plan, tokenizer, packing, digest)
    return [summary_row(index) for index in indices if index is not None]


def _run(jobs: Sequence[_Job], tokenizer: Tokenizer, workers: int, advance: Callable[[int], None]) -> None:
    """Packs parts, here or in processes of their own."""
    small = sum(job.part.bytes for job in jobs) < SMALL
    workers = min(workers or (1 if small else os.cpu_count() or 1), len(jobs))
    if workers <= 1:
        for job in jobs:
            _pack_part(job, tokenizer, threads=0, advance=advance)
        return
    with tempfile.TemporaryDirectory(prefix="seallm-tokenizer-") as name:
        tokenizer.save(pathlib.Path(name) / "tokenizer")
        with WorkerPool(workers) as pool:
            try:
                for number, _ in pool.run(_pack_elsewhere, [(job, f"{name}/tokenizer") for job in jobs]):
                    advance(jobs[number].part.lines)
            except WorkerKilledError:
                raise SeallmError(
                    "a process that packs text was killed, perhaps for want of memory; lower config.packing.workers "
                    "and give the same command again, it keeps the parts that are finished"
                ) from None


def _pack_elsewhere(job: _Job, tokenizer: str) -> None:
    _pack_part(job, _loaded(tokenizer), threads=1, advance=lambda lines: None)


@functools.cache
def _loaded(directory: str) -> Tokenizer:
    return Tokenizer.load(directory)


def _pack_part(job: _Job, tokenizer: Tokenizer, *, threads: int, advance: Callable[[int], None]) -> None:
    """Writes the rows of a part, then its record."""
    packing = job.packing
    anchor = tokenizer.begin_id if packing.mode == "anchor" else None
    packer = RowPacker(job.directory, packing.sequence_length, part=job.part.number, anchor=anchor, may_cut=True)
    try:
        documents = read_part(job.part)
        for chunk in iter(lambda: list(itertools.islice(documents, TEXTS_AT_ONCE)), []):
            taken = [document for document in chunk if job.source.takes(document.quality)]
            ids = text_ids(
                tokenizer,
                (document.text for document in taken),
                threads=threads,
                dropout=packing.bpe_dropout,
                seed=job.seed,
            )
            for document, ids_of_text in zip(taken, ids, strict=True):
                parts = split_ids(ids_of_text, packer.capacity)
                packer.add_document([[Piece(part, document.language, document.document)] for part in parts])
            advance(len(chunk))
        part = packer.finish_part()
    finally:
        packer.close()
    write_json(job.record, {"inputs_digest": job.inputs_digest, "part": dataclasses.asdict(part)})


def _finish(
    jobs: Sequence[_Job],
    source: TextSource,
    plan: TextPlan,
    tokenizer: Tokenizer,
    packing: PackingConfig,
    digest: str,
) -> ShardIndex:
    """Writes the index over all parts, and forgets what it replaces."""
    parts = []
    for job in jobs:
        part = job.finished()
        if part is None:
            raise SeallmError(f"{job.record} is missing; give the same command again")
        parts.append(part)
    directory = jobs[0].directory
    index = finish_shard(
        directory,
        parts,
        kind=source.kind,
        language=source.name,
        languages=tuple(source.files),
        sequence_length=packing.sequence_length,
        tokenizer_digest=tokenizer.digest,
        inputs_digest=digest,
        mode=packing.mode,
        inputs=plan.inputs,
    )
    kept = {rows_file(directory, number).name for number in range(len(parts))} | {INDEX_FILE}
    for path in directory.iterdir():
        if path.name not in kept and path.name.startswith(("part-", "rows-")):
            path.unlink()
    return index


def _digest(source: TextSource, plan: TextPlan, tokenizer: Tokenizer, packing: PackingConfig, seed: int) -> str:
    more = {
        "files": plan.digests,
        "languages": list(source.files),
        "parts": len(plan.parts),
        "quality": [source.minimum_quality, source.below_quality],
        "mode": packing.mode,
    }
    if packing.bpe_dropout:
        more |= {"bpe_dropout": packing.bpe_dropout, "seed": seed}
    return inputs_digest(tokenizer, packing.sequence_length, more)


def _kinds_of_text(output: pathlib.Path) -> Iterator[str]:
    """Kinds of running text that an earlier input has left."""
    for path in output.glob(f"*/*/{INDEX_FILE}"):
        if path.parent.parent.name.partition("-")[0] in ("text", "parallel", "code_switched"):
            yield path.parent.parent.name
