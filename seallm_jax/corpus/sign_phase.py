"""Third phase: signatures for duplicates, and each document's rank for the held-out part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from seallm_jax.core.paths import atomic_file, read_jsonl
from seallm_jax.corpus.clean_phase import KEPT
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.duplicate_signatures import DuplicateSignatures
from seallm_jax.corpus.frequent_lines import FrequentLines
from seallm_jax.corpus.line_phase import FREQUENT_LINES
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import Plan

SIGNATURES, RANKS = ".signatures", ".npz"


class SignPhase(Phase):
    """Writes `sign/NUMBER.*` for each input file; the ranks come last and mean that the file is done."""

    name = "sign"
    title = "signatures"

    def process(self, task: int) -> None:
        """Signs the documents of one task."""
        lines = frequent_lines(self.plan)
        for number in self.plan.files_of(task):
            if not self.plan.unit(self.name, number, RANKS).exists():
                self._sign_file(number, lines)
            self.report(self.plan.files[number].size)

    def _sign_file(self, number: int, lines: FrequentLines | None) -> None:
        plan = self.plan
        codes: dict[str, int] = {}
        languages, ranks = [], []
        with DuplicateSignatures(plan.unit(self.name, number, SIGNATURES), plan.config.duplicates) as signatures:
            for document in cleaned_documents(plan, number, lines):
                if isinstance(document, Document):
                    signatures.add(document)
                    languages.append(codes.setdefault(document.language, len(codes)))
                    ranks.append(holdout_rank(document.text, plan.seed))
        with atomic_file(plan.unit(self.name, number, RANKS)) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                codes=np.array(list(codes), dtype=np.str_),
                languages=np.array(languages, dtype=np.uint16),
                ranks=np.array(ranks, dtype=np.uint64),
            )


def frequent_lines(plan: Plan) -> FrequentLines | None:
    """What removes the frequent lines, if any are to be removed."""
    if not plan.config.frequent_lines.maximum_documents:
        return None
    return FrequentLines(plan.work / FREQUENT_LINES, plan.config.frequent_lines)


def cleaned_documents(plan: Plan, number: int, lines: FrequentLines | None) -> Iterator[Document | Rejected]:
    """What is left of an input file, in order, without its frequent lines."""
    for record in read_jsonl(plan.unit("clean", number, KEPT)):
        document = Document.from_record(record)
        if lines is None:
            yield document
            continue
        cleaned = lines.clean(document)
        if isinstance(cleaned, Document) and len(cleaned.text) < plan.config.minimum_characters:
            cleaned = document.rejected("too short without its frequent lines")
        yield cleaned


def holdout_rank(text: str, seed: int) -> int:
    """A number that a text has in every order and division of the corpus; the smallest ones are held out."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{text}".encode()).digest()[:8], "big")
