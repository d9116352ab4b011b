"""What the TPU compiler is told beside its defaults.

The options are those of libtpu, of which it has no documentation; what they do was read in the programs it makes.
"""

from __future__ import annotations

from typing import Any

_FUSION = "xla_tpu_enable_async_collective_fusion"

# Gradients of a layer are summed over devices while the next products run. By default the sums are joined to one and
# everything waits for it.
_V5E = {
    _FUSION: "true",
    f"{_FUSION}_fuse_all_reduce": "true",
    f"{_FUSION}_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_reduce": "true",
    "xla_jf_crs_combiner_threshold_in_bytes": str(1 << 20),
}

# SparseCores gather parameters and sum gradients, beside the matrix products. By default everything waits for either.
# MaxText has published a choice of these options for this chip.
_OFFLOAD = "xla_tpu_enable_sparse_core_collective_offload"
_V6E = {
    f"{_OFFLOAD}_all_gather": "true",
    f"{_OFFLOAD}_2d_all_gather": "true",
    f"{_OFFLOAD}_3d_all_gather": "true",
    f"{_OFFLOAD}_all_reduce": "true",
    f"{_OFFLOAD}_reduce_scatter": "true",
    "xla_tpu_enable_all_gather_offload_tracing": "true",
    "xla_tpu_enable_all_reduce_offload_tracing": "true",
    "xla_tpu_enable_reduce_scatter_offload_tracing": "true",
    "xla_tpu_use_tc_device_shape_on_sc": "true",
    "xla_sc_disable_megacore_partitioning": "true",
}

_OPTIONS = {"TPU v5 lite": _V5E, "TPU v6 lite": _V6E}


def compiler_options(device: Any) -> dict[str, str] | None:
    """Options for programs on a device's kind, for `jax.jit`; None for those that compile best by default."""
    return _OPTIONS.get(device.device_kind) if device.platform == "tpu" else None
