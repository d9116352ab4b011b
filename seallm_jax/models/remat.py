"""What the forward pass keeps for the backward pass, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import checkpoint_policies as policies

from seallm_jax.core.errors import SeallmError
from seallm_jax.kernels.attention.residuals import ATTENTION_OUTPUT

LAYER_INPUT = "layer_input"  # given with `checkpoint_name`
QUERY_KEY_VALUE = "query_key_value"
HOST_MEMORY = "pinned_host"

_POLICIES: dict[str, Callable[..., Any]] = {
    "full": policies.nothing_saveable,
    "dots": policies.dots_saveable,
    "dots_with_no_batch_dims": policies.dots_with_no_batch_dims_saveable,
    "dots_and_attention": policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(ATTENTION_OUTPUT)
    ),
    "attention": policies.save_only_these_names(ATTENTION_OUTPUT),
    "qkv": policies.save_only_these_names(QUERY_KEY_VALUE),
    "offload": policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT, ATTENTION_OUTPUT],
        offload_src="device",
        offload_dst=HOST_MEMORY,
    ),
}


def rematerialize(layer: Callable[..., Any], name: str, mesh: jax.sharding.Mesh | None = None) -> Callable[..., Any]:
    """`layer`, which computes in its backward pass again what the policy does not keep.

    Args:
      layer: the body of a scan over layers.
      name: see `core.train_config.TrainConfig.remat`.
      mesh: the devices that it runs on; by default the first one that JAX sees.

    Raises:
      SeallmError: a name that does not exist, or devices without host memory to offload to.
    """
    if name == "none":
        return layer
    if name not in _POLICIES:
        raise SeallmError(f"remat is {name!r}; use one of none, {', '.join(_POLICIES)}")
    if name == "offload":
        check_host_memory(mesh, "remat=offload", "use remat=full or remat=attention")
    return jax.checkpoint(layer, policy=_POLICIES[name], prevent_cse=False)


def check_host_memory(mesh: jax.sharding.Mesh | None, setting: str, way_out: str) -> None:
    """Raises SeallmError, naming `setting`, for devices whose programs cannot keep arrays in the host's memory."""
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    if not _offloads(device):
        raise SeallmError(
            f"{setting} needs devices that keep arrays in {HOST_MEMORY} memory, such as TPUs and GPUs, "
            f"and not {device.platform}; {way_out}"
        )


def _offloads(device: Any) -> bool:
    return device.platform in ("tpu", "gpu", "cuda", "rocm")
