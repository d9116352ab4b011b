"""A tiny decoder and packed rows of two preference pairs, which serve all objectives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import initialize


@pytest.fixture(scope="session")
def model() -> Decoder:
    config = ModelConfig(
        vocabulary_size=60,
        padded_vocabulary_size=128,
        hidden_size=16,
        intermediate_size=24,
        num_layers=1,
        num_heads=2,
        num_key_value_heads=1,
        head_size=8,
        initializer_range=0.3,
    )
    return initialize(config, seed=0)


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Row 0 holds pairs 0 and 1 (segments 1 to 4), row 1 holds one pair; each segment ends in a reply of 2 tokens."""
    rng = np.random.default_rng(0)
    segments = np.repeat(np.array([[1, 2, 3, 4, 0], [1, 2, 0, 0, 0]]), [4, 4, 4, 4, 2], axis=1)
    index = np.tile(np.arange(18), (2, 1))
    ids = rng.integers(0, 60, (2, 19))
    batch = Batch(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        positions=index % 4,
        segment_ids=segments,
        loss_weights=((segments > 0) & (index % 4 >= 2)).astype(np.float32),
        language_ids=np.where(segments > 2, 2, np.array([[0], [1]])),
        reference_logps=rng.normal(-8, 1, (2, 4)).astype(np.float32),
    )
    return jax.tree.map(jnp.asarray, batch)


@pytest.fixture(scope="session")
def logits(model, batch) -> jax.Array:
    """float32 [2, 18, 128], all at once."""
    forward = jax.jit(lambda model: model.logits(model(*fields, compute_dtype=jnp.float32)))
    fields = (batch.tokens, batch.positions, batch.segment_ids)
    return forward(model)
