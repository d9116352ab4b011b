"""Fourth phase, once: which documents are duplicates, and from which rank on documents are held out."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator

import numpy as np

from seallm_jax.core.paths import read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.duplicate_clusters import cluster_duplicates
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import Plan
from seallm_jax.corpus.sign_phase import RANKS, SIGNATURES

HOLDOUT_FILE = "holdout.json"


class DecidePhase(Phase):
    """Writes `decide/NUMBER.signatures` (what to drop of each file) and the last held-out rank of each language."""

    name = "decide"
    title = "finding duplicates"
    by_file = False

    def __init__(self, plan: Plan):
        super().__init__(plan)
        self.tasks = 1

    def process(self, task: int) -> None:
        """Decides for the whole corpus."""
        plan = self.plan
        signatures = plan.units("sign", SIGNATURES)
        cluster_duplicates(signatures, plan.work / self.name, plan.config.duplicates, progress=Progress.silent())
        write_json(plan.work / HOLDOUT_FILE, self._holdout())

    def _holdout(self) -> dict[str, int]:
        """Language -> the largest rank that is held out; languages with too few documents are absent."""
        config = self.plan.config
        documents: collections.Counter[str] = collections.Counter()
        for language, ranks in self._kept_ranks():
            documents[language] += len(ranks)
        wanted = {
            language: max(1, round(config.holdout_fraction * count))
            for language, count in documents.items()
            if count >= config.minimum_language_documents
        }
        smallest: dict[str, np.ndarray] = {}
        for language, ranks in self._kept_ranks():
            if count := wanted.get(language):
                found = np.concatenate([smallest.get(language, ranks[:0]), ranks])
                smallest[language] = np.partition(found, count - 1)[:count] if len(found) > count else found
        return {language: int(ranks.max()) for language, ranks in sorted(smallest.items())}

    def _kept_ranks(self) -> Iterator[tuple[str, np.ndarray]]:
        """(language, uint64 ranks of its documents that stay) for each file and each of its languages."""
        for number in range(len(self.plan.files)):
            decisions = np.frombuffer(self.plan.unit(self.name, number, SIGNATURES).read_bytes(), dtype=np.uint8)
            with np.load(self.plan.unit("sign", number, RANKS)) as ranks:
                languages, values, codes = ranks["languages"], ranks["ranks"], ranks["codes"]
            for index, code in enumerate(codes):
                yield str(code), values[(languages == index) & (decisions == 0)]


def read_holdout(work: pathlib.Path) -> dict[str, int]:
    """Language -> the largest rank that is held out, for the languages that stay."""
    return read_json(work / HOLDOUT_FILE)
