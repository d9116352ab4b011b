"""First phase: every input file read, cleaned and kept as JSON lines beside what was rejected of it."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import IO

from seallm_jax.core.paths import atomic_file, write_json
from seallm_jax.corpus.cleaner import DocumentCleaner
from seallm_jax.corpus.document import Document
from seallm_jax.corpus.frequent_lines import LineCounts
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.reader import read_documents
from seallm_jax.corpus.report import CorpusReport

KEPT, REJECTED, COUNTS, LINES = ".kept.jsonl", ".rejected.jsonl", ".json", ".lines"
QUALITY_FILE = "quality.npz"


class CleanPhase(Phase):
    """Writes `clean/NUMBER.*` for each input file; the counts come last and mean that the file is done."""

    name = "clean"
    title = "reading and cleaning"

    def process(self, task: int) -> None:
        """Cleans the files of one task. Raises SeallmError for a file that cannot be reached, or a full disk."""
        plan = self.plan
        quality = plan.work / QUALITY_FILE
        cleaner = DocumentCleaner(
            plan.config,
            evaluation=[pathlib.Path(path) for path in plan.evaluation],
            quality=quality if quality.exists() else None,
        )
        for number in plan.files_of(task):
            if not plan.unit(self.name, number, COUNTS).exists():
                self._clean_file(number, cleaner)
            self.report(plan.files[number].size)

    def _clean_file(self, number: int, cleaner: DocumentCleaner) -> None:
        plan = self.plan
        cleaner.report = CorpusReport()
        with contextlib.ExitStack() as stack:
            kept = open_text(stack, plan.unit(self.name, number, KEPT))
            rejected = open_text(stack, plan.unit(self.name, number, REJECTED))
            lines = None
            if plan.config.frequent_lines.maximum_documents:
                lines = stack.enter_context(LineCounts(plan.unit(self.name, number, LINES), plan.config.frequent_lines))
            for record in cleaner.clean(read_documents(plan.files[number], plan.config)):
                if isinstance(record, Document):
                    kept.write(json.dumps(record.to_record(), ensure_ascii=False) + "\n")
                    if lines is not None:
                        lines.add(record)
                else:
                    rejected.write(json.dumps(record.__dict__, ensure_ascii=False) + "\n")
        write_json(plan.unit(self.name, number, COUNTS), cleaner.report.to_json())


def open_text(stack: contextlib.ExitStack, path: pathlib.Path) -> IO[str]:
    """A text file that appears under its name when the stack closes without an error."""
    temporary = stack.enter_context(atomic_file(path))
    # a half of a surrogate pair, which JSON may hold and UTF-8 may not, becomes its JSON escape
    return stack.enter_context(open(temporary, "w", encoding="utf-8", errors="backslashreplace"))
