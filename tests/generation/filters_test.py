from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seallm_jax.generation.filters import keep_nucleus, penalize_repetition


@pytest.fixture(scope="module")
def logits() -> jax.Array:
    return 3.0 * jax.random.normal(jax.random.key(0), (4, 50))


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
def test_nucleus_is_that_of_transformers(logits, top_p):
    torch = pytest.importorskip("torch")
    from transformers import TopPLogitsWarper

    expected = TopPLogitsWarper(top_p)(None, torch.tensor(np.array(logits))).numpy()
    np.testing.assert_array_equal(keep_nucleus(logits, top_p), expected)


def test_nucleus_of_everything_keeps_everything(logits):
    np.testing.assert_array_equal(keep_nucleus(logits, 1.0), logits)


def test_nucleus_keeps_masked_tokens_out_and_one_token_in():
    logits = jnp.array([[2.0, -jnp.inf, 1.0, 2.0]])
    np.testing.assert_array_equal(keep_nucleus(logits, 1e-6), [[2.0, -jnp.inf, -jnp.inf, 2.0]])
    np.testing.assert_array_equal(keep_nucleus(logits, 1.0), logits)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_repetition_penalty_is_that_of_transformers(logits, penalty):
    torch = pytest.importorskip("torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    ids = np.array([[1, 2, 2], [4, 4, 4], [0, 49, 7], [9, 8, 7]])
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, ids, True, axis=1)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(torch.tensor(ids), torch.tensor(np.array(logits))).numpy()
    np.testing.assert_allclose(penalize_repetition(logits, seen, penalty), expected, rtol=1e-6)
