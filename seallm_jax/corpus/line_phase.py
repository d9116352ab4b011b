"""Second phase, once: which lines too many documents share."""

from __future__ import annotations

from seallm_jax.corpus.clean_phase import LINES
from seallm_jax.corpus.frequent_lines import find_frequent_lines
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import Plan

FREQUENT_LINES = "frequent_lines.bin"


class LinePhase(Phase):
    """Writes the frequent lines of the corpus."""

    name = "lines"
    title = "counting lines"
    by_file = False

    def __init__(self, plan: Plan):
        super().__init__(plan)
        self.tasks = 1

    def process(self, task: int) -> None:
        """Adds the counts of all files."""
        paths = self.plan.units("clean", LINES)
        find_frequent_lines(paths, self.plan.work / FREQUENT_LINES, self.plan.config.frequent_lines)
