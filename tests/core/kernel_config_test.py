import typing

import pytest

from seallm_jax.core.config import build
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import KernelConfig, TrainConfig
from seallm_jax.kernels.attention import api as attention
from seallm_jax.kernels.cross_entropy import api as cross_entropy


def test_every_implementation_can_be_asked_for():
    hints = typing.get_type_hints(KernelConfig)
    assert set(typing.get_args(hints["attention"])) == {"auto", *attention.IMPLEMENTATIONS}
    assert set(typing.get_args(hints["cross_entropy"])) == {"auto", *cross_entropy.IMPLEMENTATIONS}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention": "chunkedxla"}, r"kernels.attention is 'chunkedxla'; did you mean 'chunked_xla'\?"),
        ({"context_parallelism": "rings"}, r"did you mean 'ring'\?"),
        ({"document_length": -1}, r"document_length is -1; it must not be negative"),
    ],
)
def test_mistakes(values, message):
    with pytest.raises(UsageError, match=message):
        build(TrainConfig, {"kernels": values}, "config.pretrain")


def test_a_measured_length_fills_an_open_place_only():
    measured = TrainConfig().with_document_length(512)
    assert measured.kernels == KernelConfig(document_length=512)
    assert measured.with_document_length(64) == measured
