from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.cache import KeyValueCache

CONFIG = ModelConfig(num_layers=3, num_key_value_heads=2, head_size=4)


def test_tokens_fill_the_next_slots_of_every_layer():
    cache = KeyValueCache.empty(CONFIG, rows=2, slots=6, dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    for start, size in ((0, 4), (4, 1)):
        new = rng.normal(size=(2, size, 2, 4)).astype(np.float32)
        cache = cache.write(jnp.int32(1), new, -new)
        np.testing.assert_array_equal(cache.keys[1, :, start : start + size], new.astype(jnp.bfloat16))
        np.testing.assert_array_equal(cache.values[1, :, start : start + size], (-new).astype(jnp.bfloat16))
        assert cache.length == start
        cache = cache.advance(np.full((2, size), start + 1), np.tile(np.arange(size), (2, 1)) + 10)
        assert cache.length == start + size
    assert not cache.keys[jnp.array([0, 2])].any() and not cache.keys[:, :, 5].any()
    np.testing.assert_array_equal(cache.segment_ids[0], [1, 1, 1, 1, 5, 0])
    np.testing.assert_array_equal(cache.positions[1], [10, 11, 12, 13, 10, 0])
    assert cache.segment_ids.dtype == cache.positions.dtype == jnp.int32
