"""What matrix units of accelerators can do, by their makers."""

from __future__ import annotations

# bfloat16 operations per second of one JAX device, by the beginning of `jax.Device.device_kind`; dense, no sparsity
_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 operations per second of a device; None for one that is not known, such as a CPU."""
    found = [name for name in _PEAKS if device_kind.startswith(name)]
    return _PEAKS[max(found, key=len)] if found else None
