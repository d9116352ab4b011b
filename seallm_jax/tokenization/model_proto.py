"""SentencePiece's model file as a protocol buffer message.

The classes are made here from the fields that this package reads. SentencePiece's own generated classes load only
beside the protobuf release that they were generated with, which other packages of an installation may not allow.
Fields that are not listed are kept as they are when a model is written again.
"""

from __future__ import annotations

import functools
from typing import Any

_STRING, _BYTES, _FLOAT, _INT32, _BOOL, _MESSAGE = "STRING", "BYTES", "FLOAT", "INT32", "BOOL", "MESSAGE"
# message -> field -> (number, type, default or message). Enumerations are int32 on the wire.
_MESSAGES: dict[str, dict[str, tuple[int, str, str | None]]] = {
    "SentencePiece": {"piece": (1, _STRING, None), "score": (2, _FLOAT, None), "type": (3, _INT32, "1")},
    "TrainerSpec": {
        "model_type": (3, _INT32, "1"),
        "vocab_size": (4, _INT32, "8000"),
        "treat_whitespace_as_suffix": (24, _BOOL, "false"),
        "byte_fallback": (35, _BOOL, "false"),
        "unk_id": (40, _INT32, "0"),
        "bos_id": (41, _INT32, "1"),
        "eos_id": (42, _INT32, "2"),
        "pad_id": (43, _INT32, "-1"),
    },
    "NormalizerSpec": {
        "name": (1, _STRING, None),
        "precompiled_charsmap": (2, _BYTES, None),
        "add_dummy_prefix": (3, _BOOL, "true"),
        "remove_extra_whitespaces": (4, _BOOL, "true"),
        "escape_whitespaces": (5, _BOOL, "true"),
        "normalization_rule_tsv": (6, _STRING, None),
    },
    "ModelProto": {
        "pieces": (1, _MESSAGE, "SentencePiece"),
        "trainer_spec": (2, _MESSAGE, "TrainerSpec"),
        "normalizer_spec": (3, _MESSAGE, "NormalizerSpec"),
        "denormalizer_spec": (5, _MESSAGE, "NormalizerSpec"),
    },
}
_PACKAGE = "seallm_jax.sentencepiece"


@functools.cache
def model_proto_class() -> Any:
    """The class of a model: `pieces` (piece, score, type), `trainer_spec`, `normalizer_spec`, `denormalizer_spec`.

    Numbers, types and defaults are those of `sentencepiece_model.proto`.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="seallm_jax/sentencepiece.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, extra) in fields.items():
            field = described.field.add(name=name, number=number)
            field.type = getattr(kinds, f"TYPE_{kind}")
            field.label = kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL
            if kind == _MESSAGE:
                field.type_name = f".{_PACKAGE}.{extra}"
            elif extra is not None:
                field.default_value = extra
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ModelProto"))
