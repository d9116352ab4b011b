"""Text as words of base-tokenizer symbols: the ground on which new merges are learned."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.scripts import script_of
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.word_counter import WordCounter

MAXIMUM_SYMBOLS = 1 << 26
_BATCH_CHARACTERS = 1 << 24
_CHUNKS, _GROUP = 1 << 18, 1 << 10  # chunks per round, and per string that the tokenizer gets
# Character classes. Letters and their marks have the class of their script, from _FIRST_SCRIPT on.
_SEALED, _JOINS, _PUNCTUATION, _FIRST_SCRIPT = 0, 1, 2, 3
_JOINERS = "\u200c\u200d"  # ZWNJ, ZWJ: part of a syllable


@dataclasses.dataclass
class Words:
    """The different words of one language.

    A word is a run of symbols within which merges may happen: it begins at a space and ends where the script changes,
    at a digit, at a control character or at ZWSP. In scripts without spaces a word may be a whole phrase.

    Attributes:
      symbols: int32 [S], the words one after another. A symbol is a base id, or base size + k for character k of
        `SymbolTable.characters`, which the base can only write as bytes.
      lengths: int64 [W], symbols per word; S in all.
      counts: int64 [W], how often the word occurs.
      size: UTF-8 bytes of the text.
      threshold: 1 when counts are exact, otherwise what a rare word of the sample stands for.
    """

    symbols: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    size: int
    threshold: int = 1


class SymbolTable:
    """Symbols: the base's ids, then the characters that it lacks, in the order in which they were met.

    Attributes:
      base_size: number of ids of the base tokenizer.
      characters: code points of the symbols base_size, base_size + 1, ...
    """

    def __init__(self, base: SentencePieceTokenizer):
        self._base = base
        self.base_size = base.size
        self.characters: list[int] = []
        self._symbol_of_character: dict[int, int] = {}
        self._script_ids: dict[str, int] = {}
        mergeable = set(base.mergeable_pieces.values())
        rows = [self._describe(base.piece(index)) if index in mergeable else _SEALED_ROW for index in range(base.size)]
        self._properties = np.asarray(rows, np.int32)  # [symbols, 3]: begins a word, first class, last class
        self._encoder = fragment_encoder(base)
        pieces = list(base.mergeable_pieces)
        self._chunk_pattern = _chunk_pattern(pieces)
        newline = self._encoder.encode("\n")
        # newlines part the chunks in the tokenizer's input, unless one of its pieces holds more than a newline
        whole = any("\n" in piece for piece in pieces if len(piece) > 1) or len(newline) != 1
        self._separator = -1 if whole else newline[0]
        self._byte_of_id = np.full(base.size, -1, np.int32)
        self._byte_of_id[base.byte_ids] = np.arange(256, dtype=np.int32)

    def piece(self, symbol: int) -> str:
        """The text of a symbol, with U+2581 for a space."""
        if symbol < self.base_size:
            return self._base.piece(symbol)
        return chr(self.characters[symbol - self.base_size])

    def readable(self, piece: str) -> str:
        """The text of a piece, for people."""
        return piece.replace(SPACE, " ")

    def words(
        self,
        texts: Iterable[str],
        *,
        threads: int = 0,
        maximum_symbols: int = MAXIMUM_SYMBOLS,
        advance=lambda n=1, note="": None,
    ) -> Words:
        """Cuts the texts of one language into words and counts them.

        Pieces that the text has once are encoded once: it is cut where no piece of the base can cross, at spaces and
        newlines for most tokenizers, and only the different chunks of every few megabytes go through the tokenizer.

        Args:
          texts: documents; read once, in order.
          threads: of the tokenizer; 0 takes all cores.
          maximum_symbols: of the different words together; beyond, rare words are sampled (`WordCounter`).
          advance: is told the documents read.
        """
        counter = WordCounter(maximum_symbols)
        chunks: collections.Counter[str] = collections.Counter()
        size = characters = 0
        for number, text in enumerate(texts):
            size += _bytes(text, number)
            if self._base.adds_prefix and text and text[0] != SPACE:
                text = " " + text
            chunks.update(self._chunk_pattern.findall(text))
            characters += len(text)
            if characters >= _BATCH_CHARACTERS:
                self._count_chunks(chunks, counter, threads)
                chunks, characters = collections.Counter(), 0
            advance(1)
        self._count_chunks(chunks, counter, threads)
        symbols, lengths, counts = counter.arrays()
        return Words(symbols, lengths, counts, size, counter.threshold)

    def words_of_pieces(self, numbers: Mapping[str, int]) -> Words:
        """Words made of pieces (U+2581 for a space), as if the text had each of them so many times."""
        counter = WordCounter(MAXIMUM_SYMBOLS)
        chunks = {piece.replace(SPACE, " "): number for piece, number in numbers.items()}
        self._count_chunks(chunks, counter, 1)
        size = sum(len(chunk.encode()) * number for chunk, number in chunks.items())
        return Words(*counter.arrays(), size)

    def _count_chunks(self, chunks: Mapping[str, int], counter: WordCounter, threads: int) -> None:
        texts = list(chunks)
        numbers = np.fromiter(chunks.values(), np.int64, len(texts))
        for start in range(0, len(texts), _CHUNKS):
            part = slice(start, start + _CHUNKS)
            stream = self._join_bytes(self._encode(texts[part], threads))
            self._count(stream, numbers[part], counter)

    def _encode(self, chunks: Sequence[str], threads: int) -> np.ndarray:
        """Ids of the chunks, one after another, with -1 after each."""
        if self._separator < 0:
            encoded = self._run(list(chunks), threads)
            separator = np.full(1, -1, np.int32)
            return np.concatenate([part for ids in encoded for part in (ids, separator)])
        groups = [
            "".join(f"{chunk}\n" for chunk in chunks[start : start + _GROUP]) for start in range(0, len(chunks), _GROUP)
        ]
        stream = np.concatenate(self._run(groups, threads))
        return np.where(stream == self._separator, np.int32(-1), stream)

    def _run(self, texts: list[str], threads: int) -> list[np.ndarray]:
        return self._encoder.encode(texts, out_type="numpy", num_threads=threads or os.cpu_count() or 1)

    def _join_bytes(self, ids: np.ndarray) -> np.ndarray:
        """Replaces the byte pieces of each character by the character's symbol."""
        value = np.where(ids >= 0, self._byte_of_id[ids], -1)
        lead = value >= 0xC0
        if not lead.any():
            return ids
        padded = np.concatenate([value, np.full(3, 0x80, np.int32)])
        start = np.flatnonzero(lead)
        first = value[start]
        length = 2 + (first >= 0xE0) + (first >= 0xF0)
        code = first & (0x7F >> length)
        for offset in (1, 2, 3):
            code = np.where(offset < length, (code << 6) | (padded[start + offset] & 0x3F), code)
        distinct, inverse = np.unique(code, return_inverse=True)
        symbols = ids.copy()
        symbols[start] = np.asarray([self._symbol(int(point)) for point in distinct], np.int32)[inverse]
        return symbols[(value < 0x80) | lead]  # without the continuation bytes

    def _count(self, symbols: np.ndarray, numbers: np.ndarray, counter: WordCounter) -> None:
        """Cuts a stream of symbols (-1 after each chunk) into words and counts those that can gain something."""
        properties = np.where((symbols >= 0)[:, None], self._properties[symbols], np.asarray(_SEALED_ROW, np.int32))
        begins, first, last = properties.T
        cut = np.ones(len(symbols) + 1, bool)
        cut[1:-1] = (
            (begins[1:] == 1)
            | (first[1:] == _SEALED)
            | (last[:-1] == _SEALED)
            | ((first[1:] != _JOINS) & (last[:-1] != _JOINS) & (first[1:] != last[:-1]))
        )
        edges = np.flatnonzero(cut)
        starts = edges[:-1]
        useful = (np.diff(edges) > 1) | (symbols[starts] >= self.base_size)
        chunk = np.cumsum(symbols < 0)[starts[useful]]
        data = symbols.astype(np.int32).tobytes()
        bounds = zip((starts[useful] * 4).tolist(), (edges[1:][useful] * 4).tolist(), strict=True)  # in bytes
        words = (data[start:end] for start, end in bounds)
        counter.add(zip(words, numbers[chunk].tolist(), strict=True))

    def _symbol(self, point: int) -> int:
        if point not in self._symbol_of_character:
            self._symbol_of_character[point] = self.base_size + len(self.characters)
            self.characters.append(point)
            row = np.asarray([self._describe(chr(point), character=True)], np.int32)
            self._properties = np.concatenate([self._properties, row])
        return self._symbol_of_character[point]

    def _describe(self, piece: str, *, character: bool = False) -> tuple[int, int, int]:
        """(whether the piece begins a word, class at its beginning, class at its end)."""
        begins = piece.startswith(SPACE) and not character
        body = piece[1:] if begins else piece
        if not body:
            return 1, _JOINS, _JOINS  # a lone space joins what follows
        classes = [self._class(character) for character in body]
        kinds = set(classes) - {_JOINS}
        if _SEALED in kinds or len(kinds) > 1 or SPACE in body:
            return int(begins), _SEALED, _SEALED
        return int(begins), classes[0], max(kinds, default=_JOINS)

    def _class(self, character: str) -> int:
        category = unicodedata.category(character)
        if character in _JOINERS:
            return _JOINS
        if category[0] in "PS":
            return _PUNCTUATION
        if category[0] not in "LM":
            return _SEALED
        script = script_of(character)
        return self._script_ids.setdefault(script, _FIRST_SCRIPT + len(self._script_ids)) if script else _JOINS


_SEALED_ROW = (0, _SEALED, _SEALED)


def fragment_encoder(base: SentencePieceTokenizer) -> Any:
    """A SentencePiece processor that puts no prefix before the text."""
    import sentencepiece

    proto = base.copy_proto()
    proto.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def _chunk_pattern(pieces: Sequence[str]) -> re.Pattern[str]:
    """Text between two places that no piece crosses. U+2581 is left out: it is written as bytes and joins nothing."""
    if any("\n" in piece for piece in pieces if len(piece) > 1):
        return re.compile(f"[^{SPACE}]+")
    if any(SPACE in piece.lstrip(SPACE) for piece in pieces):
        return re.compile(f"[^\n{SPACE}]+")
    return re.compile(f" *[^ \n{SPACE}]+| +")


def _bytes(text: str, number: int) -> int:
    """UTF-8 bytes of a document."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise SeallmError(
            f"document {number} has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, "
            "which is not Unicode text; read it with errors='replace' or drop the document"
        ) from None
