"""The linear cross-entropy operator: signature, shapes and choice of implementation.

It is the only way from hidden states to a log-probability: pretraining, fine-tuning, preference losses, evaluation.

Shape letters: B rows, T positions, M hidden size, V rows of the output matrix (padded vocabulary).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.chunked_xla import chunked_xla_log_probability
from seallm_jax.kernels.cross_entropy.pallas_tpu import obstacle_to_pallas, pallas_tpu_log_probability
from seallm_jax.kernels.cross_entropy.reference import reference_log_probability
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.selection import device_of, select_implementation

IMPLEMENTATIONS = ("reference", "chunked_xla", "pallas_tpu")


def linear_log_probability(
    hidden_BxTxM: jax.Array,
    output_VxM: jax.Array,
    targets_BxT: jax.Array,
    *,
    logical_size: int,
    soft_cap: float = 0.0,
    entropy: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    implementation: str = "auto",
) -> TokenLogProbability:
    """log softmax(soft_cap(hidden @ output.T)) at the targets.

    Args:
      hidden_BxTxM: float32 or bfloat16; any number of leading dimensions, which the targets share.
      output_VxM: the output matrix, float32 or bfloat16; products are taken in the dtype of `hidden`.
      targets_BxT: int32 ids below `logical_size`.
      logical_size: rows of the matrix from here on are padding and take no probability.
      soft_cap: cap * tanh(logit / cap) on the logits (Gemma 2, arXiv 2408.00118); 0 is none.
      entropy: also return the entropy of each distribution.
      mesh: where the arrays lie, by `rules`: tokens over its rows and positions, the matrix over its vocabulary and
        hidden size. Without one, splitting a matrix that lies on several devices is left to the compiler.
      implementation: reference, chunked_xla, pallas_tpu (tokens of a device and hidden size multiples of 128), or auto:
        pallas_tpu on TPUs where it can serve, else chunked_xla.

    Returns:
      Log-probabilities and log-sum-exps (float32, natural logarithm, differentiable in `hidden` and `output`), whether
      each target is the most likely token, and the entropies if asked for, differentiable too. The gradient of the
      matrix is accumulated in float32 and has the matrix's dtype.

    Raises:
      ValueError: shapes that do not belong together.
      SeallmError: an implementation that does not exist, or that cannot serve the call.
    """
    if hidden_BxTxM.shape[:-1] != targets_BxT.shape or hidden_BxTxM.shape[-1] != output_VxM.shape[-1]:
        raise ValueError(f"hidden {hidden_BxTxM.shape}, output {output_VxM.shape} and targets {targets_BxT.shape}")
    if not 0 < logical_size <= output_VxM.shape[0]:
        raise ValueError(f"logical_size {logical_size} of an output matrix with {output_VxM.shape[0]} rows")
    if soft_cap < 0:
        raise ValueError(f"soft_cap {soft_cap}; it must not be negative")
    obstacles = dict.fromkeys(IMPLEMENTATIONS) | {"pallas_tpu": obstacle_to_pallas(hidden_BxTxM, mesh, rules)}
    preferred = ["pallas_tpu"] * (device_of(mesh).platform == "tpu") + ["chunked_xla"]
    chosen = select_implementation("linear cross-entropy", implementation, obstacles, preferred)
    arguments = hidden_BxTxM, output_VxM, targets_BxT.astype(jnp.int32)
    switches: dict[str, Any] = {"logical_size": logical_size, "soft_cap": soft_cap, "entropy": entropy}
    if chosen == "reference":
        return reference_log_probability(*arguments, **switches)
    function = pallas_tpu_log_probability if chosen == "pallas_tpu" else chunked_xla_log_probability
    return function(*arguments, **switches, mesh=mesh, rules=rules)
