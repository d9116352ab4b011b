"""Last phase, once and only when asked for: parallel text, and documents whose language changes inside."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator

from seallm_jax.core.paths import read_jsonl, write_json
from seallm_jax.corpus.code_switching import code_switch, code_switched_sentences
from seallm_jax.corpus.decontamination import CONTAMINATED, Decontaminator
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.evaluation_texts import read_evaluation_texts
from seallm_jax.corpus.language import LanguageIdentifier
from seallm_jax.corpus.parallel_documents import parallel_documents
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import OUTPUT, Plan
from seallm_jax.corpus.repair import repair_text
from seallm_jax.corpus.report import CorpusReport
from seallm_jax.corpus.write_phase import ASIDE, DocumentWriter


class SupplementPhase(Phase):
    """Writes `parallel/` and `code_switched/`, and back to `train/` what found no partner of another language."""

    name = "supplement"
    title = "parallel and code-switched text"
    by_file = False

    def __init__(self, plan: Plan):
        super().__init__(plan)
        self.tasks = 1

    @staticmethod
    def wanted(plan: Plan) -> bool:
        """Whether the config asks for any of it."""
        switching = plan.config.code_switching
        return bool(plan.config.parallel.paths or switching.paths or switching.fraction)

    def process(self, task: int) -> None:
        """Writes everything, as the part behind those of the tasks."""
        plan = self.plan
        report = CorpusReport()
        contamination = self._contamination()
        with contextlib.ExitStack() as stack:
            writer = DocumentWriter(stack, plan.work / OUTPUT, plan.tasks)
            for kind, records in (("parallel", self._parallel()), ("code_switched", self._sentences())):
                for record in records:
                    counts = report.of(record.language)
                    counts.documents_read += 1
                    counts.bytes_read += record.num_bytes
                    if isinstance(record, Document) and (found := contamination(record.text)):
                        record = record.rejected(CONTAMINATED, found)
                    if isinstance(record, Document):
                        counts.keep(kind, record.num_bytes)
                        writer.write(kind, record)
                    else:
                        report.drop(record)
                        writer.drop(record)
            for document, joined in self._joined():
                writer.write("code_switched" if joined else "train", document)
                if joined:
                    report.of(document.language).keep("code_switched", document.num_bytes)
        write_json(plan.work / self.name / f"{task:05d}.json", report.to_json())

    def _parallel(self) -> Iterator[Document | Rejected]:
        config = self.plan.config.parallel
        return parallel_documents(_paths(config.paths), config, self._identify, repair=self._repair)

    def _sentences(self) -> Iterator[Document | Rejected]:
        config = self.plan.config
        paths = _paths(config.code_switching.paths)
        return code_switched_sentences(
            paths, config.code_switching, config.parallel, self._identify, repair=self._repair
        )

    def _joined(self) -> Iterator[tuple[Document, bool]]:
        if not self.plan.config.code_switching.fraction:
            return
        files = self.plan.units("write", ASIDE)
        languages = {record["lang"] for file in files for record in read_jsonl(file)}
        streams = {language: _of_language(files, language) for language in languages}
        yield from code_switch(streams, self.plan.config.code_switching)

    def _contamination(self) -> Callable[[str], str | None]:
        """Names the evaluation text in a text. Aligned files that are trained on do not count as evaluation."""
        config = self.plan.config
        trained = set(_paths((*config.parallel.paths, *config.code_switching.paths)))
        paths = [path for path in map(pathlib.Path, self.plan.evaluation) if path not in trained]
        if not paths:
            return lambda text: None
        return Decontaminator(read_evaluation_texts(paths), config.decontamination).match

    @functools.cached_property
    def _identify(self) -> Callable[[str], str]:
        identifier = LanguageIdentifier(self.plan.config.language.model)
        return lambda text: identifier.identify(text)[0]

    def _repair(self, text: str, language: str) -> str:
        return repair_text(text, language, self.plan.config.repair)


def _paths(paths: Iterable[str]) -> list[pathlib.Path]:
    return [pathlib.Path(path).expanduser().absolute() for path in paths]


def _of_language(files: Iterable[pathlib.Path], language: str) -> Iterator[Document]:
    for file in files:
        for record in read_jsonl(file):
            if record["lang"] == language:
                yield Document.from_record(record)
