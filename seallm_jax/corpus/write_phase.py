"""Fifth phase: documents without duplicates, written by language to training and held-out files."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO

from seallm_jax.core.corpus_files import part_name
from seallm_jax.core.paths import read_json, read_jsonl, write_json
from seallm_jax.corpus.clean_phase import REJECTED, open_text
from seallm_jax.corpus.code_switching import takes_part
from seallm_jax.corpus.decide_phase import read_holdout
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.duplicate_decisions import drop_duplicates
from seallm_jax.corpus.merge_short import merge_short
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import OUTPUT
from seallm_jax.corpus.report import CorpusReport
from seallm_jax.corpus.sign_phase import SIGNATURES, cleaned_documents, frequent_lines, holdout_rank

ASIDE = ".aside.jsonl"
SUPPLEMENTS = ("parallel", "code_switched")  # one task writes all of them: they have no parts
KINDS = ("train", "heldout", *SUPPLEMENTS)


class WritePhase(Phase):
    """Writes `train/`, `heldout/` and `dropped.jsonl`, or their parts when there are several tasks."""

    name = "write"
    title = "writing"

    def process(self, task: int) -> None:
        """Writes the documents of one task."""
        plan = self.plan
        self._holdout = read_holdout(plan.work)
        self._lines = frequent_lines(plan)
        report = CorpusReport()
        part = task if plan.tasks > 1 else None
        with contextlib.ExitStack() as stack:
            writer = DocumentWriter(stack, plan.work / OUTPUT, part)
            for number in plan.files_of(task):
                for rejected in read_jsonl(plan.unit("clean", number, REJECTED)):
                    writer.drop(Rejected(**rejected))
                documents = self._divided(number, writer, report)
                if plan.config.code_switching.fraction:
                    documents = self._set_aside(documents, number)
                if plan.config.merge_short:
                    documents = merge_short(documents, plan.config.merge_short)
                for document in documents:
                    writer.write("train", document)
                self.report(plan.files[number].size)
        write_json(plan.work / self.name / f"{task:05d}.json", report.to_json())

    def _divided(self, number: int, writer: DocumentWriter, report: CorpusReport) -> Iterator[Document]:
        """Yields the training documents of a file; held-out and dropped ones go to the writer."""
        for record in self._decided(number, writer, report):
            last = self._holdout.get(record.language)
            counts = report.of(record.language)
            if last is None:
                rejected = record.rejected("rare language")
                report.drop(rejected)
                writer.drop(rejected)
            elif holdout_rank(record.text, self.plan.seed) <= last:
                counts.keep("heldout", record.num_bytes)
                writer.write("heldout", record)
            else:
                counts.keep("train", record.num_bytes)
                yield record

    def _decided(self, number: int, writer: DocumentWriter, report: CorpusReport) -> Iterator[Document]:
        def documents() -> Iterator[Document]:
            for record in cleaned_documents(self.plan, number, self._lines):
                if isinstance(record, Document):
                    yield record
                else:
                    report.drop(record)
                    writer.drop(record)

        for record in drop_duplicates(documents(), self.plan.unit("decide", number, SIGNATURES)):
            if isinstance(record, Document):
                yield record
            else:
                report.drop(record)
                writer.drop(record)

    def _set_aside(self, documents: Iterator[Document], number: int) -> Iterator[Document]:
        """Keeps what is to be joined with other languages by input file, for its order must not depend on the tasks."""
        with contextlib.ExitStack() as stack:
            aside = open_text(stack, self.plan.unit(self.name, number, ASIDE))
            for document in documents:
                if takes_part(document, self.plan.config.code_switching):
                    aside.write(json.dumps(document.to_record(), ensure_ascii=False) + "\n")
                else:
                    yield document


class DocumentWriter:
    """Writes documents by kind and language, and rejected records; files appear when the stack closes."""

    def __init__(self, stack: contextlib.ExitStack, directory: pathlib.Path, part: int | None):
        self._stack = stack
        self._directory = directory
        self._part = part
        self._files: dict[tuple[str, str], IO[str]] = {}
        self._open("", "dropped")  # also when it stays empty

    def write(self, kind: str, document: Document) -> None:
        """Writes a document to `KIND/LL.jsonl`."""
        self._line(kind, document.language, document.to_record())

    def drop(self, record: Rejected) -> None:
        """Writes a rejected record to `dropped.jsonl`."""
        self._line("", "dropped", record.__dict__)

    def _line(self, kind: str, name: str, record: dict) -> None:
        file = self._files.get((kind, name)) or self._open(kind, name)
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _open(self, kind: str, name: str) -> IO[str]:
        part = None if kind in SUPPLEMENTS else self._part
        path = self._directory / kind / part_name(name, part)
        self._files[kind, name] = open_text(self._stack, path)
        return self._files[kind, name]


def publish(work: pathlib.Path, output: pathlib.Path) -> None:
    """Moves what the phases have written into place, instead of what an earlier run has left there."""
    names = work / "published.json"  # an interrupted publication goes on where it stopped
    if not names.exists():
        write_json(names, sorted(path.name for path in (work / OUTPUT).iterdir()))
    for path in sorted((work / OUTPUT).iterdir()):
        _remove(output / path.name)
        path.rename(output / path.name)
    for path in [*(output / kind for kind in KINDS), *output.glob("dropped*.jsonl")]:
        if path.name not in read_json(names):
            _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
