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

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, atomic_file, read_json
from seallm_jax.tokenization.chat import CHAT_END, PAD, chat_template
from seallm_jax.tokenization.model_file import (
    BYTE,
    CONTROL,
    MODEL_NAME,
    NORMAL,
    SPACE,
    UNKNOWN,
    parse_model,
    piece_strings,
    read_model,
)


class Tokenizer:
    """Text to ids and back. `decode(encode(x)) == x` for every string of Unicode scalar values.

    Policy for text that needs one:

    - Nothing is normalised, stripped or collapsed. Spaces, tabs, newlines, NUL, ZWSP and every other character survive;
      characters without a piece become UTF-8 byte pieces. A string with a lone surrogate is not text: SeallmError.
    - U+2581 stands for a space inside SentencePiece, which cannot tell the two apart. Here the character itself is
      written with its three byte pieces. This is the one difference to `AutoTokenizer`, which turns it into a space.
    - Tokenizers learned by this package put no space before the text. A Llama 2 or Mistral base does (its `dummy
      prefix`); the prefix is kept, and `decode` removes it.
    - Text never makes a control id: `<s>` or `<|im_start|>` in a document are ordinary characters. Only
      `special=True`, meant for rendered chat templates, reads them as control tokens, as `AutoTokenizer` always does.
    - `encode` adds no BOS unless asked; `AutoTokenizer` adds one, as it does for Llama.

    Attributes:
      model: the serialized SentencePiece model.
      chat_template: Jinja source; Hugging Face's `apply_chat_template` conventions, with `bos_token` and `eos_token`.
      model_max_length: positions that the model was made for, or None when unknown; only handed through.
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
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """Loads a directory with `tokenizer.model` (this package's, or a Llama or Mistral checkpoint), or such a file.

        Raises:
          SeallmError: nothing there, not a SentencePiece BPE model, or a model that loses text.
        """
        path = pathlib.Path(path)
        model = read_model(path)
        config = _optional_json(path / "tokenizer_config.json") if path.is_dir() else {}
        length = config.get("model_max_length")
        return cls(
            model,
            chat_template=_saved_template(path, config),
            eos_token=_token_text(config.get("eos_token")),
            model_max_length=int(length) if length is not None and length < 1e9 else None,
            source=str(path),
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Writes tokenizer.model, tokenizer.json, tokenizer_config.json and chat_template.jinja, for `AutoTokenizer`.

        A new directory appears whole or not at all; in one that holds other files, each file is replaced atomically.
        """
        from seallm_jax.tokenization.huggingface import huggingface_files

        directory = pathlib.Path(directory)
        files = {name: text.encode() for name, text in huggingface_files(self).items()} | {MODEL_NAME: self.model}
        if directory.is_dir() and any(child.name not in files for child in directory.iterdir()):
            for name, data in files.items():
                with atomic_file(directory / name) as temporary:
                    temporary.write_bytes(data)
            return
        with atomic_directory(directory) as temporary:
            for name, data in files.items():
                (temporary / name).write_bytes(data)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, special: bool = False) -> list[int]:
        """Ids of `text`.

        Args:
          bos: put the BOS id in front, unless `special` already read one there.
          eos: put the EOS id at the end.
          special: read the text of control tokens as control tokens. For rendered chat templates only.

        Raises:
          SeallmError: the text holds a lone surrogate.
        """
        ids: list[int] = []
        start = 0
        if special:
            for match in self._control_pattern.finditer(text):
                ids += self._encode_plain(text[start : match.start()], first=start == 0)
                ids.append(self._ids[match.group()])
                start = match.end()
        ids += self._encode_plain(text[start:], first=start == 0)
        if bos and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        if eos:
            ids.append(self.eos_id)
        return ids

    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[np.ndarray]:
        """Ids of each text as int32 arrays, without BOS and EOS, on `threads` threads (0: all cores)."""
        texts = list(texts)
        if not texts:
            return []
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

    def id_of(self, piece: str) -> int | None:
        """The id of a piece (U+2581 for a space), or None."""
        return self._ids.get(piece)

    def __len__(self) -> int:
        return self.size

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
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation ends: EOS and the end of a chat turn."""
        stops = {self._proto.trainer_spec.eos_id, self.eos_id, self._controls.get(CHAT_END, self.eos_id)}
        return tuple(sorted(stops))

    @property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids, BOS, EOS and the chat tokens among them, by id."""
        return dict(sorted(self._controls.items(), key=lambda item: item[1]))

    @property
    def template_variables(self) -> dict[str, str]:
        """What the chat template needs beside the messages: the text of BOS, EOS, unknown and padding tokens."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id, "pad_token": self.pad_id}
        return {name: self.piece(index) for name, index in ids.items()}

    @property
    def has_own_template(self) -> bool:
        """Whether the chat template is another than this package's default."""
        return self.chat_template != self._default_template()

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

    @property
    def byte_ids(self) -> np.ndarray:
        """int32 [256], the id of each byte piece."""
        ids = piece_strings(self._proto, (BYTE,))
        return np.asarray([ids[f"<0x{byte:02X}>"] for byte in range(256)], np.int32)

    def encode_fragment(self, text: str) -> list[int]:
        """Ids of text from within a document: no prefix is put before it."""
        return self._encode_plain(text, first=False)

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

    @staticmethod
    def _run(encoder: Any, text: Any, **options: Any) -> Any:
        try:
            return encoder.encode(text, **options)
        except (RuntimeError, TypeError):  # what SentencePiece raises differs between one text and many
            for number, one in enumerate([text] if isinstance(text, str) else text):
                try:
                    one.encode()
                except UnicodeEncodeError as error:
                    raise SeallmError(
                        f"text {number} has the lone surrogate U+{ord(one[error.start]):04X} at character "
                        f"{error.start}, which is not Unicode text; read it with errors='replace' or drop the document"
                    ) from None
            raise

    def _checked(self, ids: Iterable[int]) -> list[int]:
        checked = [int(index) for index in ids]
        for index in checked:
            if not 0 <= index < self.size:
                raise SeallmError(f"id {index} is outside the vocabulary of {self.size} tokens")
        return checked

    @functools.cached_property
    def _space_sign_ids(self) -> list[int]:
        return [int(self.byte_ids[byte]) for byte in SPACE.encode()]

    @functools.cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self._controls, key=len, reverse=True))))

    def _default_template(self) -> str:
        return chat_template(CHAT_END if CHAT_END in self._controls else self.piece(self.eos_id))


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


def _saved_template(path: pathlib.Path, config: dict[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates: the default one
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def _token_text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _optional_json(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
