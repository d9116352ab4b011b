"""Floating-point operations that a model needs, whatever an implementation makes of them."""

from __future__ import annotations

from seallm_jax.core.schema import ModelConfig


def training_flops(
    model: ModelConfig, rows: int, positions: int, *, causal: bool, weight_gradients: bool = True
) -> float:
    """Operations of a training step: 6 x parameters of matrices x positions, and attention; nothing counts twice.

    Args:
      model: the shape; its vocabulary is the logical one, and looking up embeddings is free.
      rows: rows of a step, each of one document.
      positions: positions of a row.
      causal: count the pairs of positions that see each other. Else all pairs, as many published figures do; layers
        with a sliding window then have that many keys for every query.
      weight_gradients: False where the matrices are frozen, as under an adapter: 4 in place of 6.
    """
    M, heads = model.hidden_size, model.num_heads * model.head_size
    attention = 2 * M * heads + 2 * M * model.num_key_value_heads * model.head_size
    mlp = (3 if model.gated else 2) * M * model.intermediate_size
    matrices = model.num_layers * (attention + mlp) + model.vocabulary_size * M
    local, window = sum(model.local_layers), min(model.sliding_window, positions)
    everywhere, nearby = float(positions**2), float(window * positions)
    if causal:
        everywhere, nearby = positions**2 / 2, window * (positions - window / 2)
    pairs = (model.num_layers - local) * everywhere + local * nearby
    # scores and values: 2 products x 2 operations x 3 (forward, and backward twice)
    return rows * ((6.0 if weight_gradients else 4.0) * matrices * positions + 12.0 * heads * pairs)
