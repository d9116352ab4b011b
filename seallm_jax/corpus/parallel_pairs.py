"""Pairs of aligned sentences, repaired and filtered."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.corpus.document import Rejected
from seallm_jax.corpus.parallel import AlignedRecord, language_pairs
from seallm_jax.corpus.parallel_filter import parallel_reason

_EXCERPT_CHARACTERS = 100  # of each side


@dataclasses.dataclass(frozen=True)
class SentencePair:
    """A sentence in two languages, on one line each. `source` names the record and the pair: `a.jsonl:12#en-km`."""

    languages: tuple[str, str]
    sentences: tuple[str, str]
    source: str


def repaired_pairs(
    records: Iterable[AlignedRecord],
    config: ParallelConfig,
    identify: Callable[[str], str],
    repair: Callable[[str, str], str],
) -> Iterator[SentencePair | Rejected]:
    """The pairs of all records that `config` wants, in order, or their rejections with the reason."""
    identify = functools.lru_cache(maxsize=64)(identify)  # one side of a record occurs in several pairs
    for record in records:
        sentences = {code: " ".join(repair(text, code).split()) for code, text in record.sentences.items()}
        for languages in language_pairs(list(sentences), config.pairs):
            a, b = (sentences[code] for code in languages)
            source = f"{record.source}#{'-'.join(languages)}"
            reason = parallel_reason(a, b, languages, record.similarity, config, identify)
            if reason is None:
                yield SentencePair(languages, (a, b), source)
            else:
                size = len(f"{a}{b}".encode(errors="replace"))
                excerpt = f"{a[:_EXCERPT_CHARACTERS]} | {b[:_EXCERPT_CHARACTERS]}"
                yield Rejected(source, reason, file_language(languages), size, excerpt)


def file_language(languages: tuple[str, str]) -> str:
    """The language of a translation from the first into the second of `languages`: the one that is not English, and the
    second when neither is."""
    return languages[0] if languages[1] == "en" else languages[1]
