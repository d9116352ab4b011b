"""From logits to the distribution that is sampled from, as transformers' logits processors do it."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def penalize_repetition(logits_BxV: jax.Array, seen_BxV: jax.Array, penalty: jax.Array | float) -> jax.Array:
    """Divides positive logits of tokens already seen by `penalty` and multiplies negative ones (arXiv 1909.05858)."""
    penalized_BxV = jnp.where(logits_BxV > 0, logits_BxV / penalty, logits_BxV * penalty)
    return jnp.where(seen_BxV, penalized_BxV, logits_BxV)


def keep_nucleus(logits_BxV: jax.Array, top_p: jax.Array | float) -> jax.Array:
    """-inf outside the smallest set of most likely tokens whose mass reaches `top_p` (arXiv 1904.09751); 1 keeps all.

    Tokens as likely as the last one of the set are kept, too.
    """
    descending_BxV = jnp.sort(logits_BxV, axis=-1, descending=True)
    mass_BxV = jax.nn.softmax(descending_BxV, axis=-1)
    mass_before_BxV = jnp.cumsum(mass_BxV, axis=-1) - mass_BxV
    kept_BxV = (mass_before_BxV < top_p) | (top_p >= 1.0)
    least_Bx1 = jnp.where(kept_BxV, descending_BxV, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits_BxV >= least_Bx1, logits_BxV, -jnp.inf)
