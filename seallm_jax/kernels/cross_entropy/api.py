"""The linear cross-entropy operator: signature, shapes and choice of implementation.

It is the only way from hidden states to a log-probability: pretraining, fine-tuning, preference losses, evaluation.

Shape letters: B rows, T positions, M hidden size, V rows of the output matrix (padded vocabulary).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seallm_jax.kernels.cross_entropy.chunked_xla import chunked_xla_log_probability
from seallm_jax.kernels.cross_entropy.reference import reference_log_probability
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.selection import select_implementation

IMPLEMENTATIONS = {"reference": reference_log_probability, "chunked_xla": chunked_xla_log_probability}


def linear_log_probability(
    hidden_BxTxM: jax.Array,
    output_VxM: jax.Array,
    targets_BxT: jax.Array,
    *,
    logical_size: int,
    implementation: str = "auto",
) -> TokenLogProbability:
    """log softmax(hidden @ output.T) at the targets.

    Args:
      hidden_BxTxM: float32 or bfloat16; any number of leading dimensions, which the targets share.
      output_VxM: the output matrix, float32 or bfloat16; products are taken in the dtype of `hidden`.
      targets_BxT: int32 ids below `logical_size`.
      logical_size: rows of the matrix from here on are padding and take no probability.
      implementation: auto, reference or chunked_xla.

    Returns:
      Log-probabilities (float32, natural logarithm, differentiable in `hidden` and `output`), and whether each target
      is the most likely token. The gradient of the matrix is accumulated in float32 and has the matrix's dtype.

    Raises:
      ValueError: shapes that do not belong together.
      SeallmError: an implementation that does not exist.
    """
    if hidden_BxTxM.shape[:-1] != targets_BxT.shape or hidden_BxTxM.shape[-1] != output_VxM.shape[-1]:
        raise ValueError(f"hidden {hidden_BxTxM.shape}, output {output_VxM.shape} and targets {targets_BxT.shape}")
    if not 0 < logical_size <= output_VxM.shape[0]:
        raise ValueError(f"logical_size {logical_size} of an output matrix with {output_VxM.shape[0]} rows")
    chosen = select_implementation("linear cross-entropy", implementation, IMPLEMENTATIONS, default="chunked_xla")
    return IMPLEMENTATIONS[chosen](hidden_BxTxM, output_VxM, targets_BxT.astype(jnp.int32), logical_size=logical_size)
