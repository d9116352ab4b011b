"""A SentencePiece BPE tokenizer that loses nothing, and its directory for Hugging Face."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seallm_jax.tokenization.chat import CHAT_END, PAD
from seallm_jax.tokenization.dropout import MergeTable, check_dropout, encode_with_dropout, text_key
from seallm_jax.tokenization.model_file import (
    BYTE,
    CONTROL,
    MODEL_NAME,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    parse_model,
    piece_strings,
    read_model,
)
from seallm_jax.tokenization.tokenizer import Tokenizer, refuse_surrogates
from seallm_jax.tokenization.tokenizer_config import maximum_length, read_tokenizer_config, saved_template, token_text


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece BPE model with byte fallback and identity normalisation, as Llama 2 and Mistral have it.

    Beyond the policy of every `Tokenizer`:

    - Spaces, tabs, newlines, NUL, ZWSP and every other character survive; characters without a piece become UTF-8 byte
      pieces.
    - U+2581 stands for a space inside SentencePiece, which cannot tell the two apart. Here the character itself is
      written with its three byte pieces. This is the one difference to `AutoTokenizer`, which turns it into a space.
    - Tokenizers learned by this package put no space before the text. A Llama 2 or Mistral base does (its `dummy
      prefix`); the prefix is kept, and `decode` removes it.
    - `AutoTokenizer` adds BOS, as it does for Llama; `encode` does so only when asked.

    Attributes:
      model: the serialized SentencePiece model.
    """

    def __init__(
        self,
        model: bytes,
        *,
        chat_template: str | None = None,
        eos_token: str | None = None,
        model_max_length: int | None = None,
        source: str = "the model",
    ):
        """
        Args:
          model: serialized SentencePiece BPE model.
          chat_template: Jinja source; None takes the package's own (ChatML).
          eos_token: piece that ends a text when it is not the model's own `</s>`.
          model_max_length: handed through to `tokenizer_config.json`.
          source: what to call the model in errors.
        """
        self.model = model
        self.model_max_length = model_max_length
        self._proto = parse_model(model, source)
        self._encoder, self._bare_encoder = _processors(self._proto, model)
        self._ids = {piece.piece: index for index, piece in enumerate(self._proto.pieces)}
        self._controls = piece_strings(self._proto, (CONTROL, UNKNOWN))
        self._control_ids = frozenset(self._controls.values())
        self._eos = eos_token if eos_token in self._controls else None
        self.chat_template = chat_template if chat_template is not None else self._default_template()

    @classmethod
    def load(cls, path: str | os.PathLike) -> SentencePieceTokenizer:
        """Loads a directory with `tokenizer.model` (this package's, or a Llama or Mistral checkpoint), or such a file.

        Raises:
          SeallmError: nothing there, not a SentencePiece BPE model, or a model that loses text.
        """
        path = pathlib.Path(path)
        model = read_model(path)
        config = read_tokenizer_config(path)
        return cls(
            model,
            chat_template=saved_template(path, config),
            eos_token=token_text(config.get("eos_token")),
            model_max_length=maximum_length(config),
            source=str(path),
        )

    def files(self) -> dict[str, bytes]:
        """tokenizer.model, tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        from seallm_jax.tokenization.huggingface import huggingface_files

        return {name: text.encode() for name, text in huggingface_files(self).items()} | {MODEL_NAME: self.model}

    def encode_batch(
        self, texts: Sequence[str], *, threads: int = 0, dropout: float = 0.0, seed: int = 0
    ) -> list[np.ndarray]:
        """See `Tokenizer.encode_batch`."""
        check_dropout(dropout)
        texts = list(texts)
        if not texts:
            return []
        if dropout:
            return self._with_dropout(texts, dropout, seed)
        plain = [text.replace(SPACE, "") if SPACE in text else text for text in texts]
        encoded = self._run(self._encoder, plain, out_type="numpy", num_threads=threads or os.cpu_count() or 1)
        for index, text in enumerate(texts):
            if text is not plain[index]:
                encoded[index] = np.asarray(self._encode_plain(text), np.int32)
        return encoded

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of `ids`. Control tokens are left out, or written as text with `special`.

        Byte pieces that are no valid UTF-8 become U+FFFD.

        Raises:
          SeallmError: an id outside the vocabulary.
        """
        parts: list[str] = []
        run: list[int] = []
        decoder = self._encoder  # it removes the prefix, once
        for index in self._checked(ids):
            if index not in self._control_ids:
                run.append(index)
                continue
            if run:
                parts.append(decoder.decode(run))
                run, decoder = [], self._bare_encoder
            if index not in (self.bos_id, self.pad_id):
                decoder = self._bare_encoder
            if special:
                parts.append(self.piece(index))
        if run:
            parts.append(decoder.decode(run))
        return "".join(parts)

    def piece(self, index: int) -> str:
        """The piece with this id, with U+2581 for a space."""
        return self._proto.pieces[index].piece

    def piece_bytes(self, index: int) -> bytes:
        """See `Tokenizer.piece_bytes`."""
        byte = self._byte_values.get(index)
        return self.piece(index).replace(SPACE, " ").encode() if byte is None else bytes([byte])

    def id_of(self, piece: str) -> int | None:
        """The id of a piece (U+2581 for a space), or None."""
        return self._ids.get(piece)

    def encode_piece(self, piece: str) -> list[int]:
        """See `Tokenizer.encode_piece`."""
        return self.encode_fragment(piece.replace(SPACE, " "))

    @property
    def size(self) -> int:
        """Number of ids: the logical size of the vocabulary."""
        return len(self._proto.pieces)

    @property
    def bos_id(self) -> int:
        """Id that begins a text."""
        return self._proto.trainer_spec.bos_id

    @property
    def eos_id(self) -> int:
        """Id that ends a text."""
        return self._ids[self._eos] if self._eos is not None else self._proto.trainer_spec.eos_id

    @property
    def unk_id(self) -> int:
        """Id of the unknown token, which byte fallback leaves without use."""
        return self._proto.trainer_spec.unk_id

    @property
    def pad_id(self) -> int:
        """Id of `<pad>`; of the unknown token when the model has no padding token."""
        declared = self._proto.trainer_spec.pad_id
        return declared if 0 <= declared < self.size else self._controls.get(PAD, self.unk_id)

    @property
    def has_pad(self) -> bool:
        """Whether the tokenizer has a token for padding."""
        return 0 <= self._proto.trainer_spec.pad_id < self.size or PAD in self._controls

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation ends: EOS and the end of a chat turn."""
        stops = {self._proto.trainer_spec.eos_id, self.eos_id, self._controls.get(CHAT_END, self.eos_id)}
        return tuple(sorted(stops))

    @property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids, BOS, EOS and the chat tokens among them, by id."""
        return dict(sorted(self._controls.items(), key=lambda item: item[1]))

    @property
    def adds_prefix(self) -> bool:
        """Whether a space is put before every text, as Llama 2 and Mistral do."""
        return self._proto.normalizer_spec.add_dummy_prefix

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the SentencePiece model, as hexadecimal."""
        return hashlib.sha256(self.model).hexdigest()

    def copy_proto(self) -> Any:
        """A copy of the SentencePiece model as `ModelProto`, for those who extend it."""
        return parse_model(self.model, "the model")

    @property
    def mergeable_pieces(self) -> dict[str, int]:
        """Piece -> id of the pieces that merges make or use: all but control, byte and user-defined ones."""
        return piece_strings(self._proto, (NORMAL,))

    @functools.cached_property
    def byte_ids(self) -> np.ndarray:  # type: ignore[override]
        """int32 [256], the id of each byte piece."""
        ids = piece_strings(self._proto, (BYTE,))
        return np.asarray([ids[f"<0x{byte:02X}>"] for byte in range(256)], np.int32)

    @functools.cached_property
    def _byte_values(self) -> dict[int, int]:
        return {int(index): byte for byte, index in enumerate(self.byte_ids)}

    def _encode_plain(self, text: str, *, first: bool = True) -> list[int]:
        encoder = self._encoder if first else self._bare_encoder
        if SPACE not in text:
            return self._run(encoder, text)
        ids: list[int] = []
        for number, part in enumerate(text.split(SPACE)):
            if number:
                ids += self._space_sign_ids
            if part:
                ids += self._run(encoder if number == 0 else self._bare_encoder, part)
        return ids

    def _with_dropout(self, texts: Sequence[str], dropout: float, seed: int) -> list[np.ndarray]:
        symbols = [self._symbols(text) for text in texts]
        begins = [np.zeros(len(one), bool) for one in symbols]
        keys = [text_key(text, seed) for text in texts]
        return encode_with_dropout(self._merge_table, symbols, begins, keys, dropout)

    def _symbols(self, text: str) -> np.ndarray:
        """int32, what merging starts from: characters, bytes of those without a piece, user-defined pieces."""
        ids: list[int] = []
        starting, byte_ids = self._starting_ids, self.byte_ids
        prefix = " " if self.adds_prefix and text and text[0] != SPACE else ""
        for number, part in enumerate((prefix + text).split(SPACE)):
            ids += self._space_sign_ids if number else []
            for symbol in self._symbol_pattern.findall(part.replace(" ", SPACE)):
                if symbol not in starting:
                    try:
                        starting[symbol] = byte_ids[list(symbol.encode())].tolist()
                    except UnicodeEncodeError as error:
                        refuse_surrogates(text, error)
                ids += starting[symbol]
        return np.asarray(ids, np.int32)

    @functools.cached_property
    def _symbol_pattern(self) -> re.Pattern[str]:
        defined = sorted(piece_strings(self._proto, (USER_DEFINED,)), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, defined), "."]), re.DOTALL)

    @functools.cached_property
    def _starting_ids(self) -> dict[str, list[int]]:
        single = {piece: index for piece, index in self.mergeable_pieces.items() if len(piece) == 1}
        return {piece: [index] for piece, index in (single | piece_strings(self._proto, (USER_DEFINED,))).items()}

    @functools.cached_property
    def _merge_table(self) -> MergeTable:
        pieces, scores = self.mergeable_pieces, [piece.score for piece in self._proto.pieces]
        rank = {score: place for place, score in enumerate(sorted(set(scores), reverse=True))}
        merges = (
            (pieces[text[:cut]], pieces[text[cut:]], rank[scores[index]], index)
            for text, index in pieces.items()
            for cut in range(1, len(text))
            if text[:cut] in pieces and text[cut:] in pieces
        )
        spellings = (
            [pieces[character] for character in text]
            for text in pieces
            if len(text) > 1 and all(character in pieces for character in text)
        )
        return MergeTable.build(merges, spellings)

    @staticmethod
    def _run(encoder: Any, text: Any, **options: Any) -> Any:
        try:
            return encoder.encode(text, **options)
        except (RuntimeError, TypeError) as error:  # what SentencePiece raises differs between one text and many
            refuse_surrogates(text, error)

    @functools.cached_property
    def _space_sign_ids(self) -> list[int]:
        return [int(self.byte_ids[byte]) for byte in SPACE.encode()]


def _processors(proto: Any, model: bytes) -> tuple[Any, Any]:
    """SentencePiece processors of the model, with its own prefix and without one."""
    import sentencepiece

    encoder = sentencepiece.SentencePieceProcessor(model_proto=model)
    if not proto.normalizer_spec.add_dummy_prefix:
        return encoder, encoder
    bare = type(proto)()
    bare.CopyFrom(proto)
    bare.normalizer_spec.add_dummy_prefix = False
    return encoder, sentencepiece.SentencePieceProcessor(model_proto=bare.SerializeToString())
