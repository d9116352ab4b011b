"""Text as words of a byte-level tokenizer's ids: the ground on which new merges are learned."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Mapping

import numpy as np

from seallm_jax.core.progress import Advance
from seallm_jax.tokenization.byte_alphabet import from_alphabet
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer, backend
from seallm_jax.tokenization.segments import MAXIMUM_SYMBOLS, Words
from seallm_jax.tokenization.tokenizer import refuse_surrogates
from seallm_jax.tokenization.word_counter import WordCounter

_BATCH_CHARACTERS = 1 << 24
_CHUNKS = 1 << 16  # per call of the tokenizer
# No pattern has a word that goes on after a letter or sign with a space; text between two such places is a chunk.
_CHUNK_EDGE = re.compile(r"(?<=\S)(?= )")


class ByteLevelTable:
    """What `MergeLearner` needs of a byte-level base: its symbols are the base's ids; no character is ever missing.

    Attributes:
      base_size: number of ids of the base tokenizer.
      characters: empty.
    """

    def __init__(self, base: ByteLevelTokenizer):
        self.base_size = base.size
        self.characters: list[int] = []
        self._base = base
        self._backend = backend(base.spec)

    def piece(self, symbol: int) -> str:
        """The piece of an id, in the byte alphabet."""
        return self._base.piece(symbol)

    def readable(self, piece: str) -> str:
        """The text of a piece, for people; U+FFFD for a part of a character."""
        return from_alphabet(piece).decode("utf-8", "replace")

    def words(
        self,
        texts: Iterable[str],
        *,
        threads: int = 0,
        maximum_symbols: int = MAXIMUM_SYMBOLS,
        advance: Advance = lambda n=1, note="": None,
    ) -> Words:
        """Counts the words that the tokenizer's pattern makes of the texts of one language; see `SymbolTable.words`."""
        counter = WordCounter(maximum_symbols)
        chunks: collections.Counter[str] = collections.Counter()
        size = characters = 0
        for text in texts:
            try:
                size += len(text.encode())
            except UnicodeEncodeError as error:
                refuse_surrogates(text, error)
            chunks.update(_CHUNK_EDGE.split(text))
            characters += len(text)
            if characters >= _BATCH_CHARACTERS:
                self._count(chunks, counter)
                chunks, characters = collections.Counter(), 0
            advance(1)
        self._count(chunks, counter)
        return Words(*counter.arrays(), size, counter.threshold)

    def _count(self, chunks: Mapping[str, int], counter: WordCounter) -> None:
        items = iter(chunks.items())
        while part := list(itertools.islice(items, _CHUNKS)):
            encoded = self._backend.encode_batch([text for text, _ in part], add_special_tokens=False)
            lengths = np.asarray([len(one) for one in encoded], np.int64)
            total = int(lengths.sum())
            ids = np.fromiter(itertools.chain.from_iterable(one.ids for one in encoded), np.int32, total)
            word = np.fromiter(itertools.chain.from_iterable(one.word_ids for one in encoded), np.int64, total)
            chunk = np.repeat(np.arange(len(part)), lengths)
            starts = np.flatnonzero(np.diff((chunk << 32) | word, prepend=-1))
            ends = np.append(starts[1:], total)
            useful = ends - starts > 1
            numbers = np.asarray([number for _, number in part], np.int64)[chunk[starts[useful]]]
            data = ids.tobytes()
            spans = zip((starts[useful] * 4).tolist(), (ends[useful] * 4).tolist(), numbers.tolist(), strict=True)
            counter.add((data[start:end], number) for start, end, number in spans)
