"""Documents whose language changes inside, so that a context holds more than one language (Sailor, arXiv 2404.03608,
switches between documents; word by word did not help there)."""

from __future__ import annotations

import collections
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from seallm_jax.core.corpus_config import CodeSwitchingConfig, ParallelConfig
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.merge_short import SEPARATOR, join_documents
from seallm_jax.corpus.parallel import read_aligned
from seallm_jax.corpus.parallel_pairs import SentencePair, repaired_pairs
from seallm_jax.corpus.repair import repair_text


def code_switch(
    streams: Mapping[str, Iterable[Document]], config: CodeSwitchingConfig
) -> Iterator[tuple[Document, bool]]:
    """Joins a share of the documents with documents of other languages.

    A hash of the text chooses the documents, `config.fraction` of them. They are joined in turn, one of each language
    after the other, up to `config.maximum_characters`; when the chosen documents of all languages but one are used up,
    the rest stays alone. A joined document belongs to the language, other than English, with most characters in it, and
    its source lists those of its parts.

    Args:
      streams: language code -> its documents. Only the parts of one joined document are held in memory.

    Yields:
      (document, whether it is a joined one): every input document comes out once, alone or as part of a joined one. The
      result depends on the order of the documents and on nothing else.
    """
    iterators = {code: iter(streams[code]) for code in sorted(streams)}
    parts: list[Document] = []
    while iterators:
        for code in list(iterators):
            for document in iterators[code]:
                if takes_part(document, config):
                    break
                yield document, False
            else:
                del iterators[code]
                continue
            length = sum(len(part.text) + len(SEPARATOR) for part in parts) + len(document.text)
            same = bool(parts) and parts[-1].language == document.language
            if parts and (length > config.maximum_characters or same):
                yield from _joined(parts)
                parts = []
            parts.append(document)
    yield from _joined(parts)


def takes_part(document: Document, config: CodeSwitchingConfig) -> bool:
    """Whether `code_switch` joins the document with others, as far as it finds any."""
    return _share(document.text) < config.fraction


def code_switched_sentences(
    paths: Iterable[pathlib.Path],
    config: CodeSwitchingConfig,
    parallel: ParallelConfig,
    identify: Callable[[str], str],
    *,
    repair: Callable[[str, str], str] = repair_text,
) -> Iterator[Document | Rejected]:
    """Documents of consecutive aligned sentences, a line each, every sentence in one of the two languages of a pair.

    For every pair of languages each record is used once: with `config.switch_probability`, by hash, the language
    changes from one sentence to the next. A document ends where the record's `document` changes and at
    `config.maximum_characters`. It belongs to the language that is not English; of two others, to the second by code.

    Args:
      paths: files or directories of aligned sentences, as `config.paths`.
      parallel: which pairs of languages, and the filters of `parallel_documents`: a rejected pair comes out as such.
      identify: language code of a text, or "" when it is unknown (`identify_language`).
      repair: what is done to each side first, given its language.

    Raises:
      SeallmError: as `read_aligned`.
    """
    for path in paths:
        for _, group in itertools.groupby(read_aligned(path), key=lambda record: record.document):
            lines: dict[tuple[str, str], _Lines] = {}
            for pair in repaired_pairs(group, parallel, identify, repair):
                if isinstance(pair, Rejected):
                    yield pair
                else:
                    yield from lines.setdefault(pair.languages, _Lines(pair.languages, config)).add(pair)
            for pair_lines in lines.values():
                yield from pair_lines.end()


class _Lines:
    """The sentences of the document that is being written for one pair of languages."""

    def __init__(self, languages: tuple[str, str], config: CodeSwitchingConfig):
        self._languages, self._config = languages, config
        self._lines: list[str] = []
        self._length = 0
        self._source = ""
        self._side = 0

    def add(self, pair: SentencePair) -> Iterator[Document]:
        """Takes the next sentence; yields the document that it does not fit into any more."""
        chance = _share("\0".join((*self._languages, *pair.sentences)))
        if not self._lines:
            self._side = int(chance * 2**20) % 2
        elif chance < self._config.switch_probability:
            self._side = 1 - self._side
        line = pair.sentences[self._side]
        if self._lines and self._length + 1 + len(line) > self._config.maximum_characters:
            yield from self.end()
        if not self._lines:
            self._source = pair.source
        self._length += len(line) + bool(self._lines)
        self._lines.append(line)

    def end(self) -> Iterator[Document]:
        """Yields what is left, if anything."""
        if self._lines:
            source = f"{self._source}+{len(self._lines) - 1}"
            yield Document("\n".join(self._lines), self._languages[1], source)
        self._lines, self._length = [], 0


def _joined(parts: list[Document]) -> Iterator[tuple[Document, bool]]:
    if not parts:
        return
    characters: collections.Counter[str] = collections.Counter()
    for part in parts:
        characters[part.language] += len(part.text)
    others = [(count, code) for code, count in characters.items() if code != "en"]
    sources = " ".join(part.source for part in parts)
    yield join_documents(parts, language=max(others)[1] if others else "en", source=sources), len(characters) > 1


def _share(text: str) -> float:
    """A number in [0, 1) that follows from a text."""
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
