"""A small model over bytes, whose log-probabilities can also be had one text at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax

from seallm_jax.core.schema import ModelConfig
from seallm_jax.evaluation.scorer import Scorer
from seallm_jax.models.layout import initialize

LENGTH = 32


class ByteTokenizer:
    """Bytes are ids."""

    begin_id = 256

    def encode(self, text):
        return list(text.encode())


@functools.cache
def _decoder(scale=1.0):
    """All parameters times `scale`; with 0 every token of the logical vocabulary is as likely as any other."""
    if scale != 1.0:
        graph, state = nnx.split(_decoder())
        return nnx.merge(graph, jax.tree.map(lambda x: x * scale, state))
    config = ModelConfig(
        vocabulary_size=257,
        padded_vocabulary_size=384,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=2,
        num_key_value_heads=1,
        head_size=8,
        max_positions=64,
        initializer_range=0.3,
    )
    return initialize(config, seed=0)


@nnx.jit
def _logits(model, tokens, positions, segments):
    return model.logits(model(tokens, positions, segments, compute_dtype=jnp.float32))


def _alone(ids, start=1):
    """Log-probability of ids[start:], by a full softmax over the logical vocabulary, without packing."""
    padded = np.zeros((1, LENGTH), np.int32)  # one shape to compile
    padded[0, : len(ids) - 1] = ids[:-1]
    segments = (np.arange(LENGTH) < len(ids) - 1)[None].astype(np.int32)
    logits = _logits(_decoder(), padded, np.arange(LENGTH)[None], segments)
    table = log_softmax(np.asarray(logits, np.float64)[0, :, :257], axis=-1)
    return sum(table[position - 1, ids[position]] for position in range(start, len(ids)))


@pytest.fixture
def tokenizer():
    return ByteTokenizer()


@pytest.fixture
def decoder():
    """decoder(scale): a model; all of them have one shape. With scale 0 all tokens are equally likely."""
    return _decoder


@pytest.fixture
def alone():
    """alone(ids, start): the log-probability of ids[start:] under `scorer`'s model."""
    return _alone


@pytest.fixture
def scorer():
    return Scorer(_decoder(), sequence_length=LENGTH, batch_rows=8)
