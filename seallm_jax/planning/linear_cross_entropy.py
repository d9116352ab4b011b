"""Ways from hidden states to the log-probabilities of targets: ours, written out, and other libraries'."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp

from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.kernels.precision import matmul_precision

# float32 [N] of hidden states [N, M], matrix [V, M] and targets [N]
LogProbability = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
PLAIN = "full logits"


def ways(platform: str, mesh: jax.sharding.Mesh | None = None) -> dict[str, LogProbability]:
    """By name, for a platform such as tpu; what is not installed is left out. `mesh` is for ours."""
    ours = ["pallas_tpu"] * (platform == "tpu") + ["chunked_xla"]
    found: dict[str, LogProbability] = {f"seallm {name}": functools.partial(_ours, name, mesh) for name in ours}
    found[PLAIN] = _plain
    if importlib.util.find_spec("optax") is not None:
        found["optax"] = _optax
    if importlib.util.find_spec("tokamax") is not None:
        found["tokamax"] = _tokamax
    return found


def _ours(implementation: str, mesh, hidden_NxM, output_VxM, targets_N):
    options = {"logical_size": output_VxM.shape[0], "mesh": mesh, "implementation": implementation}
    return linear_log_probability(hidden_NxM, output_VxM, targets_N, **options).log_probability


def _logits(hidden_NxM, output_VxM):
    return jnp.einsum(
        "nm,vm->nv",
        hidden_NxM,
        output_VxM,
        precision=matmul_precision(hidden_NxM.dtype),
        preferred_element_type=jnp.float32,
    )


def _plain(hidden_NxM, output_VxM, targets_N):
    log_probabilities_NxV = jax.nn.log_softmax(_logits(hidden_NxM, output_VxM), axis=-1)
    return jnp.take_along_axis(log_probabilities_NxV, targets_N[:, None], axis=-1)[:, 0]


def _optax(hidden_NxM, output_VxM, targets_N):
    import optax

    return -optax.softmax_cross_entropy_with_integer_labels(_logits(hidden_NxM, output_VxM), targets_N)


def _tokamax(hidden_NxM, output_VxM, targets_N):
    tokamax = importlib.import_module("tokamax")
    return -tokamax.linear_softmax_cross_entropy_loss(hidden_NxM, targets_N, output_VxM.T, reduction="none")


def with_gradients(way: LogProbability, hidden_NxM, output_VxM, targets_N, cotangent_N):
    """Log-probabilities, and the gradients of hidden states and matrix."""
    found_N, pullback = jax.vjp(lambda hidden, output: way(hidden, output, targets_N), hidden_NxM, output_VxM)
    return found_N, *pullback(cotangent_N)
