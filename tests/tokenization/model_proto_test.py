"""The message classes against SentencePiece's generated ones, where those load."""

import pytest

from seallm_jax.tokenization.model_proto import model_proto_class

try:
    from sentencepiece import sentencepiece_model_pb2
except Exception as error:  # generated code refuses an older protobuf with an error of its own
    pytest.skip(f"SentencePiece's generated classes do not load: {error}", allow_module_level=True)


@pytest.mark.parametrize("name", ["base", "mistral"])
def test_nothing_is_lost_or_misread(name, request):
    model = request.getfixturevalue(name).model
    ours, theirs = model_proto_class().FromString(model), sentencepiece_model_pb2.ModelProto.FromString(model)
    assert [(piece.piece, piece.score, piece.type) for piece in ours.pieces] == [
        (piece.piece, piece.score, piece.type) for piece in theirs.pieces
    ]
    for part in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        for field in type(getattr(ours, part)).DESCRIPTOR.fields:
            assert getattr(getattr(ours, part), field.name) == getattr(getattr(theirs, part), field.name)
    again = sentencepiece_model_pb2.ModelProto.FromString(ours.SerializeToString(deterministic=True))
    assert again == theirs


def test_defaults_are_those_of_sentencepiece():
    ours, theirs = model_proto_class()(), sentencepiece_model_pb2.ModelProto()
    ours.pieces.add(), theirs.pieces.add()
    assert ours.pieces[0].type == theirs.pieces[0].type == 1
    for part in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        for field in type(getattr(ours, part)).DESCRIPTOR.fields:
            assert getattr(getattr(ours, part), field.name) == getattr(getattr(theirs, part), field.name)
