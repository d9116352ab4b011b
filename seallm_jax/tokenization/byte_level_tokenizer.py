"""A byte-level BPE tokenizer (GPT-2, BLOOM, Llama 3, Qwen, OLMo 2, tekken) that loses nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import ALPHABET, from_alphabet
from seallm_jax.tokenization.byte_level_file import TOKENIZER_NAME, read_byte_level
from seallm_jax.tokenization.chat import CHAT_END, PAD
from seallm_jax.tokenization.dropout import MergeTable, check_dropout, encode_with_dropout, text_key
from seallm_jax.tokenization.tokenizer import Tokenizer, refuse_surrogates
from seallm_jax.tokenization.tokenizer_config import CONFIG_NAME, TEMPLATE_NAME, maximum_length, token_text

_TURN_ENDS = (CHAT_END, "<|eot_id|>", "<|eom_id|>")
_DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")


class ByteLevelTokenizer(Tokenizer):
    """The `BPE` of Hugging Face's `tokenizers` over bytes, which runs the encoding.

    Beyond the policy of every `Tokenizer`:

    - Pieces are written in GPT-2's byte alphabet, where `Ġ` is a space; a piece may hold part of a character.
    - Added tokens that are not special, such as Qwen's `<tool_call>`, are read from any text, as `AutoTokenizer` does.
    - The NFC normalizer of Qwen's tokenizers is not applied, since it would not give the text back. It is kept in the
      files that `save` writes. `AutoTokenizer` gives the same ids for text in NFC, which the corpus stage makes.
    - Whether `AutoTokenizer` puts BOS in front is the post-processor's affair, which is kept; `encode` does so only
      when asked.

    Attributes:
      spec: contents of tokenizer.json, in the form that `read_byte_level` gives it.
      config: contents of tokenizer_config.json, handed through but for what an extension changes.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        config: dict[str, Any],
        *,
        chat_template: str | None = None,
        notes: tuple[str, ...] = (),
        source: str = "the tokenizer",
    ):
        """
        Args:
          spec: see the attributes; it is not changed.
          config: the tokens `bos_token`, `eos_token`, ... and `model_max_length` are read from it.
          chat_template: Jinja source; None takes the package's own (ChatML).
          notes: see `Tokenizer`.
          source: what to call the tokenizer in errors.
        """
        self.spec, self.config, self.notes = spec, config, notes
        self.model_max_length = maximum_length(config)
        self._added = {token["content"]: token["id"] for token in spec["added_tokens"]}
        self._controls = {token["content"]: token["id"] for token in spec["added_tokens"] if token["special"]}
        self._control_ids = frozenset(self._controls.values())
        self._ids = spec["model"]["vocab"] | self._added
        self._pieces = _pieces(self._ids, source)
        self._backend = backend(spec)
        self._eos = self._declared("eos_token", source)
        self._bos, self._unk, self._pad = (
            self._declared(name, source) for name in ("bos_token", "unk_token", "pad_token")
        )
        if self._eos is None:
            raise SeallmError(f"{source} names no eos_token; put it into {CONFIG_NAME}")
        self.chat_template = chat_template if chat_template is not None else self._default_template()

    @classmethod
    def load(cls, path: str | os.PathLike) -> ByteLevelTokenizer:
        """Loads a Hugging Face folder with tokenizer.json, a tekken.json, a `*.tiktoken` file, or a folder with one.

        Raises:
          SeallmError: nothing there, a tokenizer that is not byte-level BPE, or one that loses text.
        """
        return cls(**read_byte_level(path))

    def files(self) -> dict[str, bytes]:
        """tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        contents = {
            TOKENIZER_NAME: json.dumps(self.spec, ensure_ascii=False, indent=2) + "\n",
            CONFIG_NAME: json.dumps(self._saved_config(), ensure_ascii=False, indent=2) + "\n",
            TEMPLATE_NAME: self.chat_template,
        }
        return {name: text.encode() for name, text in contents.items()}

    def encode_batch(
        self, texts: Sequence[str], *, threads: int = 0, dropout: float = 0.0, seed: int = 0
    ) -> list[np.ndarray]:
        """See `Tokenizer.encode_batch`. All cores are one pool: `threads` is 1 or all."""
        check_dropout(dropout)
        texts = list(texts)
        if dropout:
            return self._with_dropout(texts, dropout, seed)
        groups = [[text] for text in texts] if threads == 1 else [texts]  # a group of one keeps one core busy
        try:
            encoded = [
                one for group in groups for one in self._backend.encode_batch_fast(group, add_special_tokens=False)
            ]
        except (TypeError, UnicodeEncodeError) as error:
            refuse_surrogates(texts, error)
        return [np.asarray(one.ids, np.int32) for one in encoded]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """See `Tokenizer.decode`."""
        parts: list[str] = []
        run: list[bytes] = []
        for index in self._checked(ids):
            if index not in self._control_ids:
                run.append(self._bytes[index])
                continue
            parts.append(b"".join(run).decode("utf-8", "replace"))
            run = []
            if special:
                parts.append(self._pieces[index])
        parts.append(b"".join(run).decode("utf-8", "replace"))
        return "".join(parts)

    def encode_piece(self, piece: str) -> list[int]:
        """Ids that merges make of a piece in the byte alphabet, whether or not its bytes are whole characters."""
        return [token.id for token in self._merging.tokenize(piece)]

    def piece(self, index: int) -> str:
        """The piece with this id, in the byte alphabet; the text of an added token."""
        return self._pieces[index]

    def piece_bytes(self, index: int) -> bytes:
        """See `Tokenizer.piece_bytes`."""
        return self._bytes[index]

    def id_of(self, piece: str) -> int | None:
        """The id of a piece in the byte alphabet, or of an added token, or None."""
        return self._ids.get(piece)

    @property
    def size(self) -> int:
        """Number of ids: the logical size of the vocabulary."""
        return len(self._pieces)

    @property
    def bos_id(self) -> int | None:
        """Id that begins a text, or None."""
        return self._bos

    @property
    def eos_id(self) -> int:
        """Id that ends a text."""
        assert self._eos is not None
        return self._eos

    @property
    def end_id(self) -> int:
        """Id behind a document: EOS, or the end-of-document token of a chat model whose EOS ends a turn."""
        ends = [self._controls[token] for token in _DOCUMENT_ENDS if token in self._controls]
        return ends[0] if ends and self.piece(self.eos_id) in _TURN_ENDS else self.eos_id

    @property
    def unk_id(self) -> int | None:
        """Id of the unknown token, or None."""
        return self._unk

    @property
    def pad_id(self) -> int:
        """Id of the declared padding token, of `<pad>`, or else of the token that ends a document."""
        return self._pad if self._pad is not None else self._controls.get(PAD, self.end_id)

    @property
    def has_pad(self) -> bool:
        """Whether the tokenizer has a token for padding."""
        return self._pad is not None or PAD in self._controls

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation ends: EOS, the ends of documents and of chat turns."""
        named = (self._controls[token] for token in (*_TURN_ENDS, *_DOCUMENT_ENDS) if token in self._controls)
        return tuple(sorted({self.eos_id, *named}))

    @functools.cached_property
    def special_tokens(self) -> dict[str, int]:  # type: ignore[override]
        """Control tokens and their ids, by id."""
        return dict(sorted(self._controls.items(), key=lambda item: item[1]))

    @functools.cached_property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 of vocabulary, merges, added tokens and pre-tokenizer, as hexadecimal."""
        decisive = {name: self.spec[name] for name in ("added_tokens", "pre_tokenizer", "model")}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def mergeable_pieces(self) -> dict[str, int]:  # type: ignore[override]
        """Piece -> id of all pieces that are no added tokens."""
        return {piece: index for piece, index in self.spec["model"]["vocab"].items() if piece not in self._added}

    @functools.cached_property
    def byte_ids(self) -> np.ndarray:  # type: ignore[override]
        """int32 [256], the id of each byte's piece; -1 for a byte that has none and that UTF-8 never uses."""
        return np.asarray([self.mergeable_pieces.get(character, -1) for character in ALPHABET], np.int32)

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        return [piece.encode() if piece in self._added else from_alphabet(piece) for piece in self._pieces]

    def _encode_plain(self, text: str, *, first: bool = True) -> list[int]:
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:
            refuse_surrogates(text, error)

    def _with_dropout(self, texts: Sequence[str], dropout: float, seed: int) -> list[np.ndarray]:
        symbols, begins = [], []
        for text in texts:
            words = [word for part in self._plain_pattern.split(text) for word in self._words(part)]
            ids = [index for word in words for index in word]
            symbols.append(np.asarray(ids, np.int32))
            begin = np.zeros(len(ids), bool)
            begin[np.cumsum([0, *map(len, words[:-1])], dtype=np.int64)[: len(words)]] = True
            begins.append(begin)
        keys = [text_key(text, seed) for text in texts]
        return encode_with_dropout(self._merge_table, symbols, begins, keys, dropout)

    def _words(self, part: str) -> list[list[int]]:
        """Ids of the bytes of each word of a text; of a text that is an added token, its id."""
        if part in self._added:
            return [[self._added[part]]]
        try:
            cut = self._backend.pre_tokenizer.pre_tokenize_str(part) if part else []
        except (TypeError, UnicodeEncodeError) as error:
            refuse_surrogates(part, error)
        return [[self._ids[character] for character in word] for word, _ in cut]

    @functools.cached_property
    def _plain_pattern(self) -> re.Pattern[str]:
        """Parts text at the added tokens that any text may have, which are parts of their own."""
        tokens = sorted(self._added.keys() - self._controls.keys(), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, tokens))})" if tokens else r"(?!)")

    @functools.cached_property
    def _merging(self) -> Any:
        """The `tokenizers` model without Llama 3's flag, by which pieces come whole that no merge makes."""
        model = self.spec["model"]
        if not model.get("ignore_merges"):
            return self._backend.model
        return backend(self.spec | {"model": model | {"ignore_merges": False}}).model

    @functools.cached_property
    def _merge_table(self) -> MergeTable:
        ids = self.mergeable_pieces
        merges = (
            (ids[left], ids[right], rank, ids[left + right])
            for rank, (left, right) in enumerate(self.spec["model"]["merges"])
        )
        spellings = ([ids[character] for character in piece] for piece in ids if len(piece) > 1)
        return MergeTable.build(merges, spellings)

    def _declared(self, name: str, source: str) -> int | None:
        text = token_text(self.config.get(name))
        if text is not None and text not in self._ids:
            raise SeallmError(f"{source}: {name} is {text!r}, which is not in the vocabulary")
        return None if text is None else self._ids[text]

    def _saved_config(self) -> dict[str, Any]:
        # the tokens themselves are in tokenizer.json, and the class is the one that takes that file as it is
        kept = {name: value for name, value in self.config.items() if name not in ("added_tokens_decoder", "auto_map")}
        return kept | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "chat_template": self.chat_template,
        }


def backend(spec: dict[str, Any]) -> Any:
    """The `tokenizers` object that encodes text as it is: without normalizer, post-processor and control tokens."""
    import tokenizers

    controls = {token["content"] for token in spec["added_tokens"] if token["special"]}
    plain = {token["content"]: token["id"] for token in spec["added_tokens"] if not token["special"]}
    model = spec["model"]
    # added tokens that the vocabulary lacks would be numbered anew
    vocabulary = {piece: index for piece, index in model["vocab"].items() if piece not in controls} | plain
    bare = spec | {
        "added_tokens": [token for token in spec["added_tokens"] if not token["special"]],
        "normalizer": None,
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "model": model | {"vocab": vocabulary, "unk_token": None},
    }
    return tokenizers.Tokenizer.from_str(json.dumps(bare))


def _pieces(ids: dict[str, int], source: str) -> list[str]:
    """The pieces by id, which have to be 0, 1, 2, ..."""
    pieces: list[str | None] = [None] * (max(ids.values()) + 1)
    for piece, index in ids.items():
        if pieces[index] is not None:
            raise SeallmError(f"{source}: both {pieces[index]!r} and {piece!r} have the id {index}")
        pieces[index] = piece
    if None in pieces:
        raise SeallmError(
            f"{source}: no token has the id {pieces.index(None)}, but ids go up to {len(pieces) - 1}; add a special "
            "token for each missing id to tokenizer.json"
        )
    return pieces  # type: ignore[return-value]
