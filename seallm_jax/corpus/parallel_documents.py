"""Aligned sentences as plain training text."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator

from seallm_jax.core.corpus_config import ParallelConfig
from seallm_jax.core.languages import language_name
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.parallel import read_aligned
from seallm_jax.corpus.parallel_pairs import SentencePair, file_language, repaired_pairs
from seallm_jax.corpus.parallel_templates import write_pair
from seallm_jax.corpus.repair import repair_text


def parallel_documents(
    paths: Iterable[pathlib.Path],
    config: ParallelConfig,
    identify: Callable[[str], str],
    *,
    repair: Callable[[str, str], str] = repair_text,
) -> Iterator[Document | Rejected]:
    """One document a pair of aligned sentences (two with `directions="both"`), or its rejection with the reason.

    The wording and the direction of a pair follow from a hash of its text, so that they depend on nothing else. The
    document's language, which names its file `parallel/LL.jsonl`, is that of the side that is not English, and that of
    the side translated into when neither is. Its source names the record and the direction: `ntrex.jsonl:12#en-km`.

    Args:
      paths: files or directories of aligned sentences, as `config.paths`.
      identify: language code of a text, or "" when it is unknown (`identify_language`).
      repair: what is done to each side first, given its language.

    Raises:
      SeallmError: as `read_aligned`.
    """
    for path in paths:
        for pair in repaired_pairs(read_aligned(path), config, identify, repair):
            if isinstance(pair, Rejected):
                yield pair
            else:
                yield from _documents(pair, config)


def _documents(pair: SentencePair, config: ParallelConfig) -> Iterator[Document]:
    digest = hashlib.blake2b("\0".join((*pair.languages, *pair.sentences)).encode(errors="replace"), digest_size=9)
    chosen, side = int.from_bytes(digest.digest()[:8], "little"), digest.digest()[8] % 2
    letter = config.templates[chosen % len(config.templates)]
    record = pair.source.rpartition("#")[0]
    for source, target in ((0, 1), (1, 0)) if side == 0 else ((1, 0), (0, 1)):
        languages = pair.languages[source], pair.languages[target]
        names = language_name(languages[0]), language_name(languages[1])
        text = write_pair(letter, pair.sentences[source], pair.sentences[target], names)
        yield Document(text, file_language(languages), f"{record}#{'-'.join(languages)}")
        if config.directions == "hash":
            return
