"""What the whole package knows of a tokenizer, whichever kind it is."""

from __future__ import annotations

import abc
import functools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, atomic_file
from seallm_jax.tokenization.chat import CHAT_END, chat_template


class Tokenizer(abc.ABC):
    """Text to ids and back. `decode(encode(x)) == x` for every string of Unicode scalar values.

    Policy for text that needs one:

    - Nothing is normalised, stripped or collapsed. A string with a lone surrogate is not text: SeallmError.
    - Text never makes a control id: `<s>` or `<|im_start|>` in a document are ordinary characters. Only
      `special=True`, meant for rendered chat templates, reads them as control tokens, as `AutoTokenizer` always does.
    - `encode` adds no BOS unless asked.
    - A tokenizer without BOS, such as Qwen's, has `bos_id` None. Its models were trained on documents one after
      another with an end-of-document token between them, so that token is what stands before a document: `begin_id`.
      Packed rows and scored texts begin with `begin_id`, whatever the tokenizer, so that the first token of a document
      has a prediction like all others; prompts begin with BOS, or with nothing where there is none.

    Attributes:
      chat_template: Jinja source; Hugging Face's `apply_chat_template` conventions.
      model_max_length: positions that the model was made for, or None when unknown; only handed through.
      notes: what the user should know of how the tokenizer was loaded, a sentence each.
    """

    chat_template: str
    model_max_length: int | None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """Loads a tokenizer of any kind.

        Args:
          path: a directory with `tokenizer.model` (SentencePiece BPE: Llama 2, Mistral, Gemma), `tokenizer.json`
            (byte-level BPE: Llama 3, Qwen, GPT-2, BLOOM, OLMo 2), `tekken.json` or a `*.tiktoken` file, looked for in
            this order; or one of these files.

        Raises:
          SeallmError: nothing there, an unsupported kind, or a tokenizer that loses text.
        """
        from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
        from seallm_jax.tokenization.model_file import MODEL_NAME
        from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer

        path = pathlib.Path(path)
        model = path / MODEL_NAME if path.is_dir() else path
        byte_level = model.suffix in (".json", ".tiktoken") or (path.is_dir() and not model.exists())
        return ByteLevelTokenizer.load(path) if byte_level else SentencePieceTokenizer.load(path)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the files that `load` and `transformers.AutoTokenizer` read.

        A new directory appears whole or not at all; in one that holds other files, each file is replaced atomically.
        """
        directory = pathlib.Path(directory)
        files = self.files()
        if directory.is_dir() and any(child.name not in files for child in directory.iterdir()):
            for name, data in files.items():
                with atomic_file(directory / name) as temporary:
                    temporary.write_bytes(data)
            return
        with atomic_directory(directory) as temporary:
            for name, data in files.items():
                (temporary / name).write_bytes(data)

    @abc.abstractmethod
    def files(self) -> dict[str, bytes]:
        """File name -> contents of what `save` writes."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, special: bool = False) -> list[int]:
        """Ids of `text`.

        Args:
          bos: put the BOS id in front, unless `special` already read one there or there is no BOS.
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
                ids.append(self.special_tokens[match.group()])
                start = match.end()
        ids += self._encode_plain(text[start:], first=start == 0)
        if bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        if eos:
            ids.append(self.eos_id)
        return ids

    @abc.abstractmethod
    def encode_batch(
        self, texts: Sequence[str], *, threads: int = 0, dropout: float = 0.0, seed: int = 0
    ) -> list[np.ndarray]:
        """Ids of each text as int32 arrays, without BOS and EOS.

        Args:
          threads: 0 takes all cores.
          dropout: probability with which each merge is skipped each time it could be made (BPE-dropout,
            arXiv 1910.13267); 0 is plain encoding. `decode` gives the text back all the same.
          seed: the segmentation is a function of the text, `dropout` and this, not of threads or order.
        """

    def encode_fragment(self, text: str) -> list[int]:
        """Ids of text from within a document: no prefix is put before it."""
        return self._encode_plain(text, first=False)

    @abc.abstractmethod
    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of `ids`. Control tokens are left out, or written as text with `special`.

        Bytes that are no valid UTF-8 become U+FFFD.

        Raises:
          SeallmError: an id outside the vocabulary.
        """

    @abc.abstractmethod
    def piece(self, index: int) -> str:
        """The piece with this id as the vocabulary writes it: U+2581 for a space, or GPT-2's byte alphabet."""

    @abc.abstractmethod
    def id_of(self, piece: str) -> int | None:
        """The id of a piece, written as `piece` writes it, or None."""

    @abc.abstractmethod
    def encode_piece(self, piece: str) -> list[int]:
        """Ids that merges make of a piece, written as `piece` writes it, within a document."""

    @abc.abstractmethod
    def piece_bytes(self, index: int) -> bytes:
        """The UTF-8 bytes that the id stands for (of a control token: of its name); perhaps part of a character."""

    @functools.cached_property
    def byte_lengths(self) -> np.ndarray:
        """int64 [V], bytes of text that each id stands for."""
        return np.asarray([len(self.piece_bytes(index)) for index in range(self.size)], np.int64)

    def __len__(self) -> int:
        return self.size

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of ids: the logical size of the vocabulary."""

    @property
    @abc.abstractmethod
    def bos_id(self) -> int | None:
        """Id that begins a text; None when the tokenizer has none, as Qwen's."""

    @property
    @abc.abstractmethod
    def eos_id(self) -> int:
        """Id that ends a text."""

    @property
    @abc.abstractmethod
    def unk_id(self) -> int | None:
        """Id of the unknown token, which bytes leave without use; None when there is none."""

    @property
    @abc.abstractmethod
    def pad_id(self) -> int:
        """Id of the padding token; of the unknown or the end-of-document token when the tokenizer has none."""

    @property
    @abc.abstractmethod
    def has_pad(self) -> bool:
        """Whether the tokenizer has a token for padding."""

    @property
    def begin_id(self) -> int:
        """Id before the first token of a document: BOS; without one, the token that ended the document before it."""
        return self.end_id if self.bos_id is None else self.bos_id

    @property
    def end_id(self) -> int:
        """Id behind the last token of a document; EOS unless that ends a chat turn and there is another."""
        return self.eos_id

    @property
    @abc.abstractmethod
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation ends: EOS and the end of a chat turn."""

    @property
    @abc.abstractmethod
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids, BOS, EOS and the chat tokens among them, by id."""

    @property
    def template_variables(self) -> dict[str, str]:
        """What the chat template needs beside the messages: the text of BOS, EOS, unknown and padding tokens."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id, "pad_token": self.pad_id}
        return {name: self.piece(index) for name, index in ids.items() if index is not None}

    @property
    def has_own_template(self) -> bool:
        """Whether the chat template is another than this package's default."""
        return self.chat_template != self._default_template()

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 of what decides the ids of a text, as hexadecimal."""

    @property
    @abc.abstractmethod
    def mergeable_pieces(self) -> dict[str, int]:
        """Piece -> id of the pieces that merges make or use."""

    @property
    @abc.abstractmethod
    def byte_ids(self) -> np.ndarray:
        """int32 [256], the id of each byte's piece; -1 for a byte that has none and that UTF-8 never uses."""

    @abc.abstractmethod
    def _encode_plain(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of text without control tokens; `first` when nothing of the document stands before it."""

    def _checked(self, ids: Iterable[int]) -> list[int]:
        checked = [int(index) for index in ids]
        for index in checked:
            if not 0 <= index < self.size:
                raise SeallmError(f"id {index} is outside the vocabulary of {self.size} tokens")
        return checked

    @functools.cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        tokens = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) if tokens else r"(?!)")

    def _default_template(self) -> str:
        return chat_template(CHAT_END if CHAT_END in self.special_tokens else self.piece(self.eos_id))


def refuse_surrogates(texts: str | Sequence[str], error: Exception) -> NoReturn:
    """Raises SeallmError when a lone surrogate is why the texts could not be encoded; the error itself otherwise."""
    for number, one in enumerate([texts] if isinstance(texts, str) else texts):
        try:
            one.encode()
        except UnicodeEncodeError as reason:
            raise SeallmError(
                f"text {number} has the lone surrogate U+{ord(one[reason.start]):04X} at character "
                f"{reason.start}, which is not Unicode text; read it with errors='replace' or drop the document"
            ) from None
    raise error
