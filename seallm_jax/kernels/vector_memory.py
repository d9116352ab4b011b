"""Vector memory of TPUs that kernels may use."""

from __future__ import annotations

from typing import NamedTuple


class VectorMemory(NamedTuple):
    """Bytes.

    Attributes:
      alone: for a kernel that does all the work of its operator.
      beside_products: for one between matrix products of XLA, which uses what is left.
    """

    alone: int
    beside_products: int


# device kind -> MiB; what chips hold that are not listed, nobody knows
_MEBIBYTES = {
    "TPU v4": (14, 14),
    "TPU v5 lite": (100, 100),
    "TPU v5": (56, 56),
    "TPU v6 lite": (100, 48),
    "TPU7x": (48, 48),
}
_OTHERS = (14, 14)


def vector_memory(device_kind: str) -> VectorMemory:
    """What kernels may use on devices of this kind (`jax.Device.device_kind`)."""
    return VectorMemory(*(mebibytes * 2**20 for mebibytes in _MEBIBYTES.get(device_kind, _OTHERS)))
