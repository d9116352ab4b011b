"""The whole corpus stage timed on one core, for `seallm bench corpus`."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from seallm_jax.core.corpus_config import CorpusConfig, ExecutionConfig, FrequentLinesConfig, QualityConfig
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path

MAXIMUM_EXAMPLES = 2000  # for the quality classifier
LINE_DOCUMENTS = 1000  # lines of more documents are removed


def time_pipeline(paths: Sequence[str], texts: Sequence[str], copies: int) -> dict[str, Any]:
    """Cleans `copies` copies of local files with everything on, as one task in this process.

    Reading, repair, identification, filters, masking, decontamination against the embedded quiz, quality scores, line
    counts, exact, address and near duplicates, the held-out part and writing; on disk, as `seallm corpus` does it.

    Args:
      texts: of the same corpus; one half of them against the other makes a quality classifier, for its speed.

    Returns:
      megabytes read, CPU seconds, megabytes a CPU second, documents kept.
    """
    from seallm_jax.corpus.pipeline import build_corpus
    from seallm_jax.corpus.quality import MINIMUM_EXAMPLES, QualityClassifier
    from seallm_jax.corpus.reader import find_files

    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for copy in range(copies):
            for path in paths:
                for file in find_files(path):
                    target = directory / "in" / f"{copy}" / file.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file.address, target)
        model = ""
        if len(texts) >= 4 * MINIMUM_EXAMPLES:
            model = str(directory / "quality.npz")
            QualityClassifier.train(texts[:MAXIMUM_EXAMPLES:2], texts[1:MAXIMUM_EXAMPLES:2]).save(model)
        config = CorpusConfig(
            path=str(directory / "in"),
            quality=QualityConfig(model=model),
            frequent_lines=FrequentLinesConfig(maximum_documents=LINE_DOCUMENTS),
            execution=ExecutionConfig(workers=1),
        )
        start = time.process_time()
        report = build_corpus(
            config, directory / "out", seed=0, progress=Progress(), evaluation=[sample_path("choices")]
        )
        seconds = time.process_time() - start
    megabytes = sum(counts.bytes_read for counts in report.counts.values()) / 1e6
    return {
        "MB": megabytes,
        "CPU seconds": seconds,
        "MB a CPU second": megabytes / seconds,
        "documents": sum(counts.documents_read for counts in report.counts.values()),
        "kept": sum(counts.train_documents + counts.heldout_documents for counts in report.counts.values()),
    }
