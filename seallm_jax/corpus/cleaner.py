"""Everything that is done to one document alone: repair, identification, filters, masking, decontamination, quality."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.languages import KNOWN_LANGUAGES, language_code
from seallm_jax.corpus.decontamination import CONTAMINATED, Decontaminator
from seallm_jax.corpus.document import EXCERPT_CHARACTERS, Document, Rejected
from seallm_jax.corpus.evaluation_texts import read_evaluation_texts
from seallm_jax.corpus.filters import TextFilter
from seallm_jax.corpus.language import LanguageIdentifier, contradicts_script
from seallm_jax.corpus.personal_data import mask_personal_data
from seallm_jax.corpus.quality import QualityClassifier
from seallm_jax.corpus.repair import repair_text
from seallm_jax.corpus.report import CorpusReport


class DocumentCleaner:
    """Cleans documents one by one. What it does to a document depends on no other document.

    Attributes:
      report: what was read and dropped so far.
    """

    def __init__(
        self, config: CorpusConfig, *, evaluation: Iterable[pathlib.Path] = (), quality: pathlib.Path | None = None
    ):
        """`evaluation`: files that no document may repeat; `quality`: a classifier's file, None for no scores."""
        self.report = CorpusReport()
        self._config = config
        self._identifier = LanguageIdentifier(config.language.model)
        self._filter = TextFilter(config.filters)
        paths = list(evaluation)
        texts = read_evaluation_texts(paths) if paths else ()
        self._decontaminator = Decontaminator(texts, config.decontamination) if paths else None
        self._quality = QualityClassifier.load(quality) if quality else None

    def clean(self, records: Iterable[Document | Rejected]) -> Iterator[Document | Rejected]:
        """Yields each record, cleaned, or rejected with the reason."""
        for record in records:
            cleaned = record if isinstance(record, Rejected) else self._clean(record)
            if isinstance(record, Rejected):
                self._count(record.language, record.num_bytes)
            if isinstance(cleaned, Rejected):
                self.report.drop(cleaned)
            yield cleaned

    def _clean(self, document: Document) -> Document | Rejected:
        config = self._config
        label = language_code(document.language)
        text = repair_text(document.text, label, config.repair)
        identified, confidence = self._identifier.identify(text)
        certain = identified if confidence >= config.language.minimum_confidence else ""
        language = label or certain
        self._count(language, document.num_bytes)
        if label and identified and len(text) >= config.minimum_characters:
            self.report.of(language).identified[identified] += 1
        quality, detail = document.quality, ""
        if len(text) < config.minimum_characters:
            reason: str | None = "too short"
        elif not language:
            reason = "unknown language"
        elif config.languages and language not in config.languages:
            reason = "language not wanted"
        elif label in KNOWN_LANGUAGES and identified != label and contradicts_script(text, label):
            reason = "wrong script"
        else:
            reason = self._filter.reason(text, language)
            if reason is None and self._decontaminator is not None:
                detail = self._decontaminator.match(text) or ""
                reason = CONTAMINATED if detail else None
            if reason is None and self._quality is not None:
                quality = self._quality.score(text)
                reason = "low quality" if quality < config.quality.minimum else None
        if reason is not None:
            return Rejected(document.source, reason, language, document.num_bytes, text[:EXCERPT_CHARACTERS], detail)
        if config.filters.mask_personal_data:
            text, masked = mask_personal_data(text)
            self.report.of(language).masked.update(masked)
        return Document(text, language, document.source, document.url, quality)

    def _count(self, language: str, num_bytes: int) -> None:
        counts = self.report.of(language)
        counts.documents_read += 1
        counts.bytes_read += num_bytes
