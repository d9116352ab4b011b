"""Text as words of base-tokenizer symbols: the ground on which new merges are learned."""

from __future__ import annotations

import collections
import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.tokenizer import Tokenizer

_BATCH_CHARACTERS = 1 << 20
# Character classes. Letters and their marks have the class of their script, from _FIRST_SCRIPT on.
_SEALED, _JOINS, _PUNCTUATION, _FIRST_SCRIPT = 0, 1, 2, 3
_CHINESE_AND_JAPANESE = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "KANGXI"}
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
    """

    symbols: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    size: int


class SymbolTable:
    """Symbols: the base's ids, then the characters that it lacks, in the order in which they were met.

    Attributes:
      base_size: number of ids of the base tokenizer.
      characters: code points of the symbols base_size, base_size + 1, ...
    """

    def __init__(self, base: Tokenizer):
        self._base = base
        self.base_size = base.size
        self.characters: list[int] = []
        self._symbol_of_character: dict[int, int] = {}
        self._script_ids: dict[str, int] = {}
        mergeable = set(base.mergeable_pieces.values())
        rows = [self._describe(base.piece(index)) if index in mergeable else _SEALED_ROW for index in range(base.size)]
        self._properties = np.asarray(rows, np.int32)  # [symbols, 3]: begins a word, first class, last class
        self._byte_of_id = np.full(base.size, -1, np.int32)
        self._byte_of_id[base.byte_ids] = np.arange(256, dtype=np.int32)

    def piece(self, symbol: int) -> str:
        """The text of a symbol, with U+2581 for a space."""
        if symbol < self.base_size:
            return self._base.piece(symbol)
        return chr(self.characters[symbol - self.base_size])

    def words(self, texts: Iterable[str], *, threads: int = 0, advance=lambda n=1, note="": None) -> Words:
        """Cuts the texts of one language into words and counts them. `advance` is told the documents read."""
        counter: collections.Counter[bytes] = collections.Counter()
        size = 0
        for batch in _batches(texts):
            size += sum(len(text.encode()) for text in batch)
            encoded = self._base.encode_batch(batch, threads=threads)
            separator = np.full(1, -1, np.int32)
            ids = np.concatenate([part for array in encoded for part in (array, separator)])
            self._count(self._join_bytes(ids), counter)
            advance(len(batch))
        blocks = [np.frombuffer(word, np.int32) for word in counter]
        return Words(
            symbols=np.concatenate(blocks) if blocks else np.zeros(0, np.int32),
            lengths=np.asarray([len(block) for block in blocks], np.int64),
            counts=np.asarray(list(counter.values()), np.int64),
            size=size,
        )

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

    def _count(self, symbols: np.ndarray, counter: collections.Counter[bytes]) -> None:
        """Cuts a stream of symbols (-1 between documents) into words and counts those that can gain something."""
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
        lengths = np.diff(edges)
        useful = (lengths > 1) | (symbols[edges[:-1]] >= self.base_size)
        starts = edges[:-1][useful] * 4  # in bytes
        ends = edges[1:][useful] * 4
        data = symbols.astype(np.int32).tobytes()
        counter.update(data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))

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
        script = unicodedata.name(character, "UNNAMED").split(" ")[0]
        if script in ("COMBINING", "VARIATION"):
            return _JOINS
        script = "CJK" if script in _CHINESE_AND_JAPANESE else script
        return self._script_ids.setdefault(script, _FIRST_SCRIPT + len(self._script_ids))


_SEALED_ROW = (0, _SEALED, _SEALED)


def _batches(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    """Documents in batches of about a million characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
