"""The pieces of another tokenizer, or of a list, as candidates for new tokens."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.tokenization.model_file import NORMAL, SPACE, USER_DEFINED
from seallm_jax.tokenization.model_proto import model_proto_class

_MODEL_NAMES = ("tokenizer.model", "sentencepiece.bpe.model", "sentencepiece.model", "spiece.model")


def read_donor(path: str | os.PathLike) -> tuple[str, ...]:
    """The pieces of a vocabulary in their order, with U+2581 for a space; special tokens and bytes left out.

    Args:
      path: a SentencePiece model of any type and normalisation (.model), a Hugging Face folder or `tokenizer.json`
        (BPE, unigram or WordPiece, byte-level or not), `tekken.json`, a .tiktoken file, or a plain list: .txt with a
        piece a line, .json with a list or with a vocabulary as an object.

    Raises:
      SeallmError: nothing there, or nothing that can be read as a vocabulary.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = (*_MODEL_NAMES, "tokenizer.json", "tekken.json")
        found = next((path / name for name in names if (path / name).exists()), None)
        if found is None:
            raise SeallmError(f"{path} has no vocabulary: none of {', '.join(names)}")
        path = found
    if not path.exists():
        raise SeallmError(f"{path} does not exist; a donor is a SentencePiece model, a tokenizer folder or a list")
    pieces = tuple(dict.fromkeys(piece for piece in _read(path) if piece.strip(SPACE) and not piece.isspace()))
    if not pieces:
        raise SeallmError(f"{path} holds no pieces")
    return pieces


def _read(path: pathlib.Path) -> list[str]:
    if path.suffix == ".tiktoken":
        return _byte_level(path)
    if path.suffix == ".json":
        value = read_json(path)
        if isinstance(value, dict) and isinstance(value.get("model"), dict):
            return _fast_tokenizer(path, value)
        if isinstance(value, dict) and isinstance(value.get("vocab"), list):
            return _byte_level(path)  # tekken
        if isinstance(value, dict) and all(isinstance(rank, int) for rank in value.values()):
            value = sorted(value, key=value.__getitem__)
        if isinstance(value, list) and all(isinstance(piece, str) for piece in value):
            return [piece.replace(" ", SPACE) for piece in value]
        raise SeallmError(f"{path} is neither a tokenizer nor a list of pieces")
    if path.suffix == ".txt":
        try:
            return [line.replace(" ", SPACE) for line in path.read_text(encoding="utf-8").split("\n") if line]
        except UnicodeDecodeError as error:
            raise SeallmError(f"{path} is not UTF-8 text: {error}") from error
    return _sentencepiece(path)


def _sentencepiece(path: pathlib.Path) -> list[str]:
    from google.protobuf.message import DecodeError

    proto = model_proto_class()()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        raise SeallmError(f"{path} is not a SentencePiece model")
    return [piece.piece for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)]


def _fast_tokenizer(path: pathlib.Path, value: dict[str, Any]) -> list[str]:
    """The vocabulary of a tokenizer.json, in the order of its ids."""
    model = value["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        vocabulary = sorted(vocabulary, key=vocabulary.__getitem__)
    elif isinstance(vocabulary, list):  # unigram: [piece, score]
        vocabulary = [piece for piece, _ in vocabulary]
    else:
        raise SeallmError(f"{path} has no vocabulary")
    special = {token["content"] for token in value.get("added_tokens") or []}
    pieces = [piece for piece in vocabulary if piece not in special]
    if "ByteLevel" in json.dumps([value.get("pre_tokenizer"), value.get("decoder")]):
        return _byte_level(path)
    if model.get("type") == "WordPiece":
        prefix = model.get("continuing_subword_prefix") or "##"
        return [piece.removeprefix(prefix) if piece.startswith(prefix) else SPACE + piece for piece in pieces]
    return [piece for piece in pieces if not (piece.startswith("<0x") and piece.endswith(">"))]


def _byte_level(path: pathlib.Path) -> list[str]:
    """Pieces of a byte-level tokenizer that are whole characters."""
    from seallm_jax.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    special = set(tokenizer.special_tokens.values())
    pieces = []
    for index in range(tokenizer.size):
        if index in special:
            continue
        try:
            pieces.append(tokenizer.piece_bytes(index).decode().replace(" ", SPACE))
        except UnicodeDecodeError:
            continue
    return pieces
