"""The SentencePiece model as protocol buffer: read, check, extend."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.tokenization.model_proto import model_proto_class

MODEL_NAME = "tokenizer.model"
SPACE = "\u2581"  # SentencePiece's sign for a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ModelProto.SentencePiece.Type
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


def read_model(path: pathlib.Path) -> bytes:
    """Reads `tokenizer.model` (a file, or the one in a directory) and checks that this package can serve it exactly.

    A directory's `tokenizer.json`, `added_tokens.json` and `tokenizer_config.json` may hold tokens that the model file
    does not know; they become control (special) or user-defined pieces with the ids that they have there.

    Returns:
      The serialized `ModelProto`; the file's own bytes when no token was added.

    Raises:
      SeallmError: no such file, not a SentencePiece BPE model, or one for which decode(encode(x)) != x.
    """
    directory = path if path.is_dir() else None
    if directory is not None:
        path = directory / MODEL_NAME
        if not path.exists():
            raise SeallmError(_no_model_file(directory))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SeallmError(
            f"{path} does not exist; give a SentencePiece model or a directory with {MODEL_NAME}"
        ) from None
    except OSError as error:
        raise SeallmError(f"cannot read {path}: {error.strerror or error}") from error
    proto = parse_model(data, str(path))
    if directory is not None and _include_added_tokens(proto, _added_tokens(directory), directory):
        return proto.SerializeToString(deterministic=True)
    return data


def parse_model(data: bytes, source: str) -> Any:
    """Parses and checks a serialized model; `source` is its name in errors."""
    from google.protobuf.message import DecodeError

    proto = model_proto_class()()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        kind = "; it is a rank file of tiktoken (Llama 3): use the folder with tokenizer.json" if _ranks(data) else ""
        raise SeallmError(f"{source} is not a SentencePiece model{kind}")
    _check(proto, source)
    return proto


def _ranks(data: bytes) -> bool:
    """Whether a file lists base64 and ranks, as Meta's own `tokenizer.model` of Llama 3 does."""
    line = data[:200].split(b"\n")[0].split(b" ")
    return len(line) == 2 and line[1].isdigit() and bool(re.fullmatch(rb"[A-Za-z0-9+/]+=*", line[0]))


def append_pieces(proto: Any, pieces: Sequence[str], *, control: Sequence[str] = ()) -> None:
    """Appends control pieces, then normal pieces. The scores of the normal ones fall strictly, below all old scores.

    SentencePiece merges the pair with the highest score first, so every old merge still comes before every new one.
    """
    for piece in control:
        proto.pieces.add(piece=piece, score=0.0, type=CONTROL)
    lowest = np.float32(min(piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)))
    step = np.float32(max(1.0, 2 * abs(np.spacing(lowest))))  # whitespace pieces of Llama 2 have a score of -1e9
    for index, piece in enumerate(pieces, start=1):
        proto.pieces.add(piece=piece, score=float(np.float32(lowest - step * index)), type=NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)


def _check(proto: Any, source: str) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != 2:
        kind = _MODEL_TYPES.get(trainer.model_type, str(trainer.model_type))
        raise SeallmError(f"{source} is a SentencePiece {kind} model; only BPE models are supported")
    broken = []
    if normalizer.precompiled_charsmap or normalizer.normalization_rule_tsv:
        broken.append(f"it normalises text ({normalizer.name or 'custom rules'})")
    if normalizer.remove_extra_whitespaces:
        broken.append("it removes repeated spaces")
    if not normalizer.escape_whitespaces or trainer.treat_whitespace_as_suffix:
        broken.append("it does not write a space as a leading U+2581")
    if proto.denormalizer_spec.precompiled_charsmap:
        broken.append("it rewrites decoded text")
    if not trainer.byte_fallback:
        broken.append("it has no byte fallback")
    if SPACE not in piece_strings(proto, (NORMAL,)):
        broken.append("it has no piece for a space")
    if broken:
        raise SeallmError(
            f"{source} loses text: {', '.join(broken)}; decode(encode(x)) would differ from x, which damages Thai "
            "and Lao most. Use a model with identity normalisation and byte fallback, or `seallm vocab learn` one"
        )
    for name, index in (("BOS", trainer.bos_id), ("EOS", trainer.eos_id), ("unknown", trainer.unk_id)):
        if not 0 <= index < len(proto.pieces):
            raise SeallmError(
                f"{source} has no {name} token (its id is {index}); a language model's tokenizer needs one"
            )
    for piece in proto.pieces:
        if (piece.type == USER_DEFINED and {SPACE, " "} & set(piece.piece)) or piece.type == UNUSED:
            kind = "unused" if piece.type == UNUSED else "user-defined"
            raise SeallmError(
                f"{source} has the {kind} piece {piece.piece!r}, which no Hugging Face tokenizer reproduces"
            )


def _no_model_file(directory: pathlib.Path) -> str:
    if (directory / "tokenizer.json").exists():
        return (
            f"{directory} has a tokenizer.json but no {MODEL_NAME}; load a byte-level BPE tokenizer (Llama 3, Qwen) "
            "with Tokenizer.load"
        )
    return f"{directory} has no {MODEL_NAME}"


def _added_tokens(directory: pathlib.Path) -> dict[int, tuple[str, bool]]:
    """id -> (token, whether it is special) of the tokens that the Hugging Face files declare."""
    tokens: dict[int, tuple[str, bool]] = {}
    plain = _read_optional(directory / "added_tokens.json")
    tokens.update({int(index): (str(token), True) for token, index in plain.items()})
    declared = _read_optional(directory / "tokenizer_config.json").get("added_tokens_decoder") or {}
    tokens.update({int(index): (token["content"], bool(token.get("special"))) for index, token in declared.items()})
    fast = _read_optional(directory / "tokenizer.json").get("added_tokens") or []
    tokens.update({int(token["id"]): (token["content"], bool(token.get("special"))) for token in fast})
    return dict(sorted(tokens.items()))


def _include_added_tokens(proto: Any, tokens: dict[int, tuple[str, bool]], directory: pathlib.Path) -> bool:
    """Puts the tokens into the model; whether there was anything to do."""
    changed = False
    for index, (token, special) in tokens.items():
        kind = CONTROL if special else USER_DEFINED
        if index < len(proto.pieces):
            piece = proto.pieces[index]
            if piece.piece == token:
                continue
            if piece.type not in (CONTROL, USER_DEFINED):
                raise SeallmError(
                    f"{directory}: id {index} is {piece.piece!r} in {MODEL_NAME} but the added token {token!r}"
                )
            piece.piece, piece.type = token, kind  # a reserved slot that a fine-tune renamed
        elif index == len(proto.pieces):
            proto.pieces.add(piece=token, score=0.0, type=kind)
        else:
            raise SeallmError(
                f"{directory}: the added token {token!r} has id {index}, but ids end at {len(proto.pieces) - 1}; "
                "a gap cannot be kept"
            )
        changed = True
    return changed


def _read_optional(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def piece_strings(proto: Any, types: Iterable[int]) -> dict[str, int]:
    """Piece -> id of the pieces of these types."""
    wanted = set(types)
    return {piece.piece: index for index, piece in enumerate(proto.pieces) if piece.type in wanted}
