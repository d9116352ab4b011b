"""The corpus stage: read, clean, drop duplicates, hold out, in phases that run here, on Slurm or on Ray."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterable

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import CorpusConfig
from seallm_jax.corpus.clean_phase import COUNTS, QUALITY_FILE, CleanPhase
from seallm_jax.corpus.decide_phase import DecidePhase
from seallm_jax.corpus.document import Document
from seallm_jax.corpus.executor import run_phases
from seallm_jax.corpus.line_phase import LinePhase
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.plan import Plan
from seallm_jax.corpus.quality import QualityClassifier
from seallm_jax.corpus.reader import DAMAGED, UNREADABLE, find_files, read_documents
from seallm_jax.corpus.report import CorpusReport
from seallm_jax.corpus.sign_phase import SignPhase
from seallm_jax.corpus.supplement_phase import SupplementPhase
from seallm_jax.corpus.write_phase import WritePhase, publish

WORK = "work"
NAMED_RECORDS = 3  # unreadable records that are named on the screen


def build_corpus(
    config: CorpusConfig,
    output: pathlib.Path,
    *,
    seed: int,
    progress: Progress,
    evaluation: Iterable[pathlib.Path] = (),
) -> CorpusReport:
    """Writes `train/LL.jsonl`, `heldout/LL.jsonl` and `dropped.jsonl` into `output` and returns the counts.

    Where the config asks for them, also `parallel/LL.jsonl` and `code_switched/LL.jsonl`. With several tasks the files
    are parts, `LL-00007.jsonl`. Records are those of `Document`. The held-out part is drawn after near duplicates are
    gone, by the rank of a hash of text and seed. The documents do not depend on the number of tasks and workers nor on
    the executor. An interrupted run continues from what it left in `output/work`; what was in `output` before stays
    until the new corpus is whole.

    Args:
      evaluation: files or directories of the run's evaluation, which no document may repeat.

    Raises:
      SeallmError: nothing readable at `config.path`, a task that failed, a full disk, or no document left.
    """
    plan = _make_plan(config, output, seed, evaluation, progress)
    phases: list[Phase] = [CleanPhase(plan), SignPhase(plan), DecidePhase(plan), WritePhase(plan)]
    if config.frequent_lines.maximum_documents:
        phases.insert(1, LinePhase(plan))
    if SupplementPhase.wanted(plan):
        phases.append(SupplementPhase(plan))
    _train_quality(plan, progress)
    run_phases(phases, config.execution, progress)
    report = CorpusReport()
    written = [path for phase in (WritePhase, SupplementPhase) for path in (plan.work / phase.name).glob("?????.json")]
    for path in [*plan.units("clean", COUNTS), *sorted(written)]:
        report.add(CorpusReport.from_json(read_json(path)))
    _check(report, config)
    publish(plan.work, output)
    shutil.rmtree(plan.work)
    _warn(report, output, progress)
    return report


def _make_plan(
    config: CorpusConfig, output: pathlib.Path, seed: int, evaluation: Iterable[pathlib.Path], progress: Progress
) -> Plan:
    """The plan, and a working directory that holds nothing of another plan."""
    files = find_files(config.path)
    tasks = min(config.execution.tasks, len(files))
    if tasks < config.execution.tasks:
        progress.say(f"corpus: {tasks} tasks, for each input file is read by one task")
    work = (output / WORK).absolute()
    paths = tuple(str(path.absolute()) for path in evaluation)
    plan = Plan(work, tuple(files), config, seed, tasks, paths)
    plan.prepare()
    return plan


def _train_quality(plan: Plan, progress: Progress) -> None:
    """Puts the quality classifier into the working directory, if the config asks for one."""
    config, path = plan.config.quality, plan.work / QUALITY_FILE
    if path.exists():
        return
    if config.model:
        QualityClassifier.load(config.model).save(path)
    elif config.good:
        progress.say("corpus: training the quality classifier")
        QualityClassifier.train(_texts(config.good), _texts(config.bad), seed=plan.seed).save(path)


def _texts(path: str) -> Iterable[str]:
    for file in find_files(path):
        for record in read_documents(file, CorpusConfig()):
            if isinstance(record, Document):
                yield record.text


def _check(report: CorpusReport, config: CorpusConfig) -> None:
    if report.languages:
        return
    name = config.path or "the embedded sample"
    reasons = report.dropped
    if not reasons:
        raise SeallmError(f"the corpus at {name} is empty: no record in any file")
    if set(reasons) == {"rare language"}:
        raise SeallmError(
            f"no language has {config.minimum_language_documents} documents left; "
            "give more text or lower config.corpus.minimum_language_documents"
        )
    why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    damage = [sample for counts in report.counts.values() for sample in counts.samples.get(DAMAGED, [])]
    detail = f" ({damage[0][0]}: {damage[0][1]})" if damage else ""
    advice = "; are the files UTF-8 text in the format that their names say?" if set(reasons) <= set(UNREADABLE) else ""
    raise SeallmError(f"the corpus at {name} is empty after cleaning: {why}{detail}{advice}")


def _warn(report: CorpusReport, output: pathlib.Path, progress: Progress) -> None:
    """Names unreadable records, which nobody asked to drop: first the files that could not be read to their end."""
    unreadable = {reason: n for reason, n in report.dropped.items() if reason in UNREADABLE}
    samples = [
        (reason != DAMAGED, source, f"{reason}, nothing after it was read ({text})" if reason == DAMAGED else reason)
        for counts in report.counts.values()
        for reason in unreadable
        for source, text in counts.samples.get(reason, [])
    ]
    for _, source, text in sorted(samples)[:NAMED_RECORDS]:
        progress.say(f"warning: {source}: {text}")
    if unreadable:
        total = sum(unreadable.values())
        progress.say(f"warning: {total} unreadable records were left out; all are in {output}/dropped*.jsonl")
