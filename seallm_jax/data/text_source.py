"""Sources of running text: which files of the corpus stage are packed together."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

from seallm_jax.core.corpus_files import corpus_files, corpus_languages
from seallm_jax.core.schema import PackingConfig

KINDS = {"text": "train", "parallel": "parallel", "code_switched": "code_switched"}  # kind -> folder of the corpus


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Running text that becomes one shard.

    Attributes:
      kind: text, text-BAND, parallel or code_switched.
      name: language code, or the name of a group of languages that share rows.
      files: language -> its JSON-lines files, in order; more than one language mixes them within rows.
      minimum_quality: documents of lower quality are left to other sources.
      below_quality: so are documents of this quality and above. Documents without a quality count as the lowest.
    """

    kind: str
    name: str
    files: dict[str, tuple[pathlib.Path, ...]]
    minimum_quality: float = -math.inf
    below_quality: float = math.inf

    def takes(self, quality: float | None) -> bool:
        """Whether a document of this quality belongs here."""
        return self.minimum_quality <= (-math.inf if quality is None else quality) < self.below_quality


def text_sources(corpus: pathlib.Path, languages: Sequence[str], packing: PackingConfig) -> list[TextSource]:
    """The sources that the output of the corpus stage gives.

    Args:
      corpus: directory with train/ and perhaps parallel/ and code_switched/.
      languages: the run's languages; each has training text.
      packing: groups of `mixed` languages and `quality_bands` of text.

    Raises:
      SeallmError: a language without training text.
    """
    sources = []
    for kind, folder in KINDS.items():
        present = languages if kind == "text" else [c for c in corpus_languages(corpus / folder) if c in languages]
        files = {code: tuple(corpus_files(corpus / folder, code)) for code in present}
        grouped = {code for group in packing.mixed.values() for code in group}
        groups = {code: {code: paths} for code, paths in files.items() if code not in grouped}
        for name, group in packing.mixed.items():
            if any(code in files for code in group):
                groups[name] = {code: files[code] for code in group if code in files}
        for name, members in sorted(groups.items()):
            above = math.inf
            for band, minimum in sorted(packing.quality_bands.items(), key=lambda item: -item[1]):
                if kind == "text":
                    sources.append(TextSource(f"text-{band}", name, members, minimum, above))
                    above = minimum
            sources.append(TextSource(kind, name, members, below_quality=above))
    return sources
