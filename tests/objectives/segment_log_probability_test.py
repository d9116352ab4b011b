from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seallm_jax.objectives.segment_log_probability import segment_log_probabilities


@pytest.mark.parametrize("num_segments", [3, 6])
def test_each_segment_sums_its_weighted_tokens(model, batch, logits, num_segments):
    run = functools.partial(segment_log_probabilities, num_segments=num_segments, compute_dtype=jnp.float32)
    found = jax.jit(run)(model, batch)
    logps = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=-1)[..., 0]
    expected = [
        [(logps * batch.loss_weights)[row][batch.segment_ids[row] == s].sum() for s in range(1, num_segments + 1)]
        for row in range(2)
    ]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-5, atol=1e-6)
    assert not np.any(found[1, 2:])  # the row has two segments
